"""Weights in units of their own spread over the training checkpoints."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError, did_you_mean
from hypergen.specs import WeightSpec

Scope = Literal["entry", "slot"]


class Standardize(nn.Module):
    """(weights - mean) / std, entry by entry or with one pair of numbers for each slot.

    Numbers of a slot keep their relations to each other, and units stay exchangeable, with
    `"slot"` (as p-diff and SANE do). `"entry"` removes what all checkpoints have in common, such
    as the start that they share.

    Args:
        spec: The weights.
        by: `"entry"` or `"slot"`.
        floor: Smallest standard deviation, relative to the median one.

    Raises:
        SpecError: An unknown scope, or a negative floor.
    """

    def __init__(self, spec: WeightSpec, by: Scope = "slot", floor: float = 0.01) -> None:
        super().__init__()
        if by not in get_args(Scope):
            raise SpecError(
                f"weights are standardised by entry or slot.{did_you_mean(by, get_args(Scope))}"
            )
        if floor < 0:
            raise SpecError(f"floor must not be negative, not {floor}")
        self.by, self.floor = by, floor
        # Not persistent: which numbers belong to a slot follows from the spec.
        sizes = torch.tensor([slot.numel for slot in spec])
        self.register_buffer("sizes", sizes, persistent=False)
        # Until it is fitted: a network at its start, in units of its slots' scales.
        self.register_buffer("mean", spec.per_entry("mean"))
        self.register_buffer("std", spec.per_entry("scale"))
        self.sizes: Tensor
        self.mean: Tensor
        self.std: Tensor

    def fit(self, flat: Tensor) -> None:
        """Takes mean and spread of `[N, numel]` checkpoints."""
        flat = flat.to(self.mean.device, torch.float64)
        mean = flat.mean(0)
        if self.by == "slot":
            mean = self._per_slot(mean)
        variance = (flat - mean).square().mean(0)
        std = (self._per_slot(variance) if self.by == "slot" else variance).sqrt()
        self.mean.copy_(mean)
        # Numbers that never vary get the smallest spread that is allowed; 1 where none is, as of a
        # single checkpoint without a floor.
        median = std[std > 0].median() if bool((std > 0).any()) else std.new_ones(())
        std = std.clamp(min=self.floor * float(median))
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def _per_slot(self, values: Tensor) -> Tensor:
        """The mean over each slot, spread over its numbers again."""
        owner = torch.arange(len(self.sizes), device=values.device).repeat_interleave(self.sizes)
        total = values.new_zeros(len(self.sizes)).index_add_(0, owner, values)
        return (total / self.sizes)[owner]

    def encode(self, flat: Tensor) -> Tensor:
        """Weights `[..., numel]` → numbers of mean 0 and variance 1 over the checkpoints."""
        return (flat - self.mean) / self.std

    def decode(self, normal: Tensor) -> Tensor:
        """The inverse of `encode`."""
        return self.mean + self.std * normal
