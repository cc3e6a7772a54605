"""A denoiser of what a network should become, given what it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import ConditionError
from hypergen.conditions import Condition
from hypergen.generators.diffusion.denoiser import Denoiser


class UpdateDenoiser(Denoiser):
    """Predicts data as current latents + f(noisy latents, current latents, time, condition).

    The form of G.pt (Peebles et al., "Learning to Learn with Generative Models of Neural Network
    Checkpoints", 2022, arXiv:2209.12892), whose transformer sees the current and the noisy weights
    and puts out a difference, from heads that start at zero: before it is trained it returns the
    current weights. Here both are one token of twice the width, so that current and noisy numbers
    of one place meet without attention, and there are half as many tokens.

    Args:
        tokens: See `Denoiser`.
        dim: See `Denoiser`.
        positions: See `Denoiser`.
        mask: See `Denoiser`.
        condition_dim: See `Denoiser`.
        denoiser: What f is: name of a denoiser, or a mapping with `name` and its options.
    """

    def __init__(
        self,
        tokens: int,
        dim: int,
        positions: Tensor,
        mask: Tensor,
        condition_dim: int,
        denoiser: str | Mapping[str, Any] = "DiT",
    ) -> None:
        inner = Denoiser.from_dict(
            denoiser, tokens, 2 * dim, positions, torch.cat([mask, mask], dim=1), condition_dim
        )
        super().__init__(tokens, dim, positions, mask, condition_dim, {"denoiser": inner.to_dict()})
        self.denoiser = inner

    def read(self, condition: Condition | None) -> tuple[Tensor, Any]:
        """Current latents `[B, T, D]`, and what the inner denoiser reads of the condition.

        Args:
            condition: With the current *latents* as `weights`, `[B, T · D]`: the generator, which
                has the codec, puts them there.

        Raises:
            ConditionError: There are none.
        """
        if condition is None or condition.weights is None:
            raise ConditionError(
                "this generator changes given weights: give them, with the metric values"
            )
        current = condition.weights.unflatten(1, (self.tokens, self.dim))
        bare = dataclasses.replace(condition, weights=None)
        return current, self.denoiser.read(bare)

    def step(self, x: Tensor, time: Tensor, memory: Any) -> Tensor:
        """Predicts the data behind `[B, T, D]`."""
        current, inner = memory
        change = self.denoiser.step(torch.cat([x, current], dim=-1), time, inner)
        out: Tensor = current + change[..., : self.dim]
        return out

    def forward(self, x: Tensor, time: Tensor, condition: Condition | None) -> Tensor:
        """Predicts the data behind `[B, T, D]` at times `[B]`."""
        return self.step(x, time, self.read(condition))
