"""MLPDenoiser: all latents of a network as one vector."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.conditions import Condition
from hypergen.generators.diffusion.denoiser import Denoiser, TimeEmbedding


class MLPDenoiser(Denoiser):
    """Hidden layers of widths h, h / 2 and h over all latents and the embedded time.

    Gupta et al., "DeepWeightFlow", 2026, arXiv:2601.05052. Its size is fixed by nature: the first
    and the last layer hold h · T · D numbers each. The pooled condition is added to the time.

    Args:
        tokens: Number T of latent tokens.
        dim: Width D of a latent token.
        positions: `[T, 3]`, not read.
        mask: `[T, D]` bool, False where a latent is padding.
        condition_dim: Width of the condition, 0 for none.
        hidden: Width h.
        time_dim: Width of the embedded time.
        dropout: Dropout after every hidden layer.
    """

    def __init__(
        self,
        tokens: int,
        dim: int,
        positions: Tensor,
        mask: Tensor,
        condition_dim: int,
        hidden: int = 512,
        time_dim: int = 128,
        dropout: float = 0.1,
    ) -> None:
        options = {"hidden": hidden, "time_dim": time_dim, "dropout": dropout}
        super().__init__(tokens, dim, positions, mask, condition_dim, options)
        if hidden < 2 or time_dim < 1:
            raise SpecError("MLPDenoiser needs hidden of at least 2 and a positive time_dim")
        self.time = TimeEmbedding(time_dim)
        self.pooled = pooled_projection(condition_dim, time_dim)
        widths = [tokens * dim + time_dim, hidden, hidden // 2, hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.GELU()]
            layers += [nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.head = zero_linear(hidden, tokens * dim)

    def read(self, condition: Condition | None) -> Any:
        """The projected pooled condition, `[B, time_dim]`."""
        return None if condition is None or self.pooled is None else self.pooled(condition.pooled)

    def step(self, x: Tensor, time: Tensor, memory: Any) -> Tensor:
        """Predicts from latents `[B, T, D]`."""
        embedded = self.time(time)
        if memory is not None:
            embedded = embedded + memory
        hidden = self.layers(torch.cat([x.flatten(1), embedded], dim=1))
        out: Tensor = self.head(hidden).unflatten(1, (self.tokens, self.dim))
        return out

    def forward(self, x: Tensor, time: Tensor, condition: Condition | None) -> Tensor:
        """Predicts from latents `[B, T, D]`."""
        return self.step(x, time, self.read(condition))


def pooled_projection(condition_dim: int, dim: int) -> nn.Module | None:
    """Brings the pooled condition to a width; None where there is no condition."""
    if not condition_dim:
        return None
    return nn.Sequential(nn.LayerNorm(condition_dim), nn.Linear(condition_dim, dim))


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts at zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
