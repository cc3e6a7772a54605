"""Latents in units of their spread over the training checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError

Scope = Literal["entry", "global", "none"]


class Whitening(nn.Module):
    """(latents - mean) / std, which is the identity until it is fitted.

    Processes start from noise of unit variance, so that latents should have unit variance too.

    Args:
        mask: `[T, D]` bool, False where a latent is padding, which stays zero.
        scope: What shares mean and spread: every latent has its own (`"entry"`), all share one
            (`"global"`), or latents stay as they are (`"none"`).
        floor: Smallest spread of a latent, relative to the median one.

    Raises:
        SpecError: An unknown scope.
    """

    def __init__(self, mask: Tensor, scope: Scope = "entry", floor: float = 1e-3) -> None:
        super().__init__()
        if scope not in get_args(Scope):
            raise SpecError(f"latents are whitened by entry, global or none, not {scope!r}")
        self.scope, self.floor = scope, floor
        self.register_buffer("padding", ~mask, persistent=False)
        self.register_buffer("mean", torch.zeros(mask.shape))
        self.register_buffer("std", torch.ones(mask.shape))
        self.padding: Tensor
        self.mean: Tensor
        self.std: Tensor

    @torch.no_grad()
    def fit(self, chunks: Iterable[Tensor]) -> None:
        """Takes mean and spread of latents `[N, T, D]`, given in chunks; one pass, in float64."""
        if self.scope == "none":
            return
        count = 0
        mean = torch.zeros_like(self.mean, dtype=torch.float64)
        squares = torch.zeros_like(mean)
        for chunk in chunks:  # merged as in Chan, Golub and LeVeque, 1979
            latents = chunk.double()
            own = latents.mean(0)
            delta = own - mean
            total = count + len(latents)
            mean += delta * (len(latents) / total)
            squares += (latents - own).square().sum(0)
            squares += delta.square() * (count * len(latents) / total)
            count = total
        variance = squares / count
        real = ~self.padding
        if self.scope == "global":
            centre = mean[real].mean()
            variance = (variance[real] + (mean[real] - centre).square()).mean()
            mean = centre
        std = variance.sqrt().expand_as(self.std)
        # Latents that hardly vary over the training set are not blown up.
        typical = float(std[real].median()) or float(std[real].max())
        std = std.clamp(min=self.floor * typical)
        self.std.copy_(torch.where(real & (std > 0), std, 1.0))
        self.mean.copy_(torch.where(real, mean, 0.0))

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `[B, T, D]` → whitened ones, zero under the mask."""
        return ((latents - self.mean) / self.std).masked_fill(self.padding, 0)

    def inverse(self, white: Tensor) -> Tensor:
        """Whitened latents `[B, T, D]` → latents, zero under the mask."""
        return (self.mean + self.std * white).masked_fill(self.padding, 0)
