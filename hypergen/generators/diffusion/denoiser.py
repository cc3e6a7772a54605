"""Denoiser: what predicts noise, data or velocity from noisy latents."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen.conditions import Condition
from hypergen.generators.diffusion.codec import build


class Denoiser(nn.Module, ABC):
    """Noisy latents `[B, T, D]`, time `[B]` and a condition → prediction `[B, T, D]`.

    Time is 0 for data and 1 for noise, whatever the process. The last layer starts at zero. A
    condition must reach every token. A subclass passes its own constructor arguments (all but the
    five below) to `super().__init__`, and registers itself by class name.

    Sampling calls `read` once and `step` at every time: what depends on the condition alone (keys,
    values, projections) belongs into `read`. A subclass implements either `forward` alone, or
    `read` and `step`.

    Args:
        tokens: Number T of latent tokens.
        dim: Width D of a latent token.
        positions: `[T, 3]` long: layer, slot, number within the slot.
        mask: `[T, D]` bool, False where a latent is padding.
        condition_dim: Width of the condition; 0 for an unconditional denoiser, whose condition is
            None.
        options: The subclass's own constructor arguments, JSON-serialisable.
    """

    _registry: ClassVar[dict[str, type[Denoiser]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Denoiser._registry[cls.__name__] = cls

    def __init__(
        self,
        tokens: int,
        dim: int,
        positions: Tensor,
        mask: Tensor,
        condition_dim: int,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.tokens, self.dim, self.condition_dim = tokens, dim, condition_dim
        self.options: dict[str, Any] = json.loads(json.dumps(dict(options)))
        # Both follow from the codec, which is saved.
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self.positions: Tensor
        self.mask: Tensor

    @abstractmethod
    def forward(self, x: Tensor, time: Tensor, condition: Condition | None) -> Tensor:
        """Predicts from `x` `[B, T, D]` at `time` `[B]` in [0, 1]; `[B, T, D]`."""

    def read(self, condition: Condition | None) -> Any:
        """What all steps of a sampling need of the condition."""
        return condition

    def step(self, x: Tensor, time: Tensor, memory: Any) -> Tensor:
        """`forward`, with what `read` returned in the condition's place."""
        out: Tensor = self(x, time, memory)
        return out

    def draw(self) -> Tensor | None:
        """`[S]`, the tokens that a training step denoises; None for all of them.

        A denoiser that returns some takes them as the fourth argument of `forward`, and in `x` the
        latents of these alone.
        """
        return None

    def to_dict(self) -> dict[str, Any]:
        """Name and constructor arguments, JSON-serialisable; tensors travel in the state dict."""
        return {"name": type(self).__name__, **self.options}

    @staticmethod
    def from_dict(
        data: str | Mapping[str, Any],
        tokens: int,
        dim: int,
        positions: Tensor,
        mask: Tensor,
        condition_dim: int,
    ) -> Denoiser:
        """Builds a denoiser from `to_dict`, or from its name alone.

        Raises:
            SpecError: Unknown name, or arguments that it does not take.
        """
        arguments = (tokens, dim, positions, mask, condition_dim)
        found = build(Denoiser._registry, data, "denoiser", arguments)
        assert isinstance(found, Denoiser)
        return found


class TimeEmbedding(nn.Module):
    """Time in [0, 1] → `[B, dim]`: sines and cosines, then an MLP.

    Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020,
    arXiv:2006.11239, embed the number of one of a thousand steps so; here 1000 · time.

    Args:
        dim: Width.
        frequencies: Number of sines, and of cosines.
    """

    def __init__(self, dim: int, frequencies: int = 64) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.network = nn.Sequential(
            nn.Linear(2 * frequencies, dim), nn.SiLU(), nn.Linear(dim, dim)
        )

    def forward(self, time: Tensor) -> Tensor:
        """`[B]` → `[B, dim]`."""
        # Its own dtype would be too coarse, where that is half precision.
        embedded = sinusoid(1000 * time.float(), self.frequencies)
        out: Tensor = self.network(embedded.to(next(self.parameters()).dtype))
        return out


def sinusoid(values: Tensor, frequencies: int, period: float = 10000.0) -> Tensor:
    """Sines and cosines at geometric frequencies from 1 to 1 / `period`.

    Args:
        values: `[...]`.
        frequencies: Number F of frequencies.
        period: Ratio of the largest to the smallest frequency.

    Returns:
        `[..., 2 F]`.
    """
    values = values if values.is_floating_point() else values.float()
    steps = torch.arange(frequencies, device=values.device, dtype=values.dtype)
    rates = torch.exp(-math.log(period) * steps / max(1, frequencies - 1))
    angle = values[..., None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
