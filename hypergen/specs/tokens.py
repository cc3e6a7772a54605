"""Weights as a sequence of tokens of one width, and exactly back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from hypergen._utils.errors import SpecError, WeightsError
from hypergen.specs.base import WeightSpec


@dataclass(frozen=True)
class TokenLayout:
    """A fixed cut of a spec's numbers into tokens.

    Padding is told apart by a mask, never by a special number. Reading and writing tokens is one
    gather and one scatter, whatever the number of slots.

    Args:
        spec: The spec to cut.
        size: Width of a token.
        by: `"flat"` cuts the flat vector, crossing slots; `"slot"` starts a new token at every
            slot; `"channel"` at every row (output channel) of every slot as well.

    Raises:
        SpecError: The size is not positive, or the cut is unknown.
    """

    spec: WeightSpec
    size: int
    by: Literal["flat", "slot", "channel"] = "slot"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise SpecError(f"the token size must be positive, not {self.size}")
        if self.by not in ("flat", "slot", "channel"):
            raise SpecError(f"tokens are cut by flat, slot or channel, not {self.by!r}")

    @cached_property
    def _rows(self) -> list[tuple[int, int, int, int]]:
        """Token → (start in the flat vector, entries, slot, offset of the token in its slot)."""
        rows: list[tuple[int, int, int, int]] = []
        if self.by == "flat":
            bounds = torch.tensor([slot.numel for slot in self.spec]).cumsum(0)
            for start in range(0, self.spec.numel, self.size):
                slot_index = int(torch.searchsorted(bounds, start, right=True))
                first = int(bounds[slot_index]) - self.spec.slots[slot_index].numel
                count = min(self.size, self.spec.numel - start)
                rows.append((start, count, slot_index, start - first))
            return rows
        offset = 0
        for slot_index, slot in enumerate(self.spec):
            channels = slot.shape[0] if self.by == "channel" and len(slot.shape) > 1 else 1
            length = slot.numel // channels
            for channel in range(channels):
                for part in range(math.ceil(length / self.size)):
                    inner = channel * length + part * self.size
                    count = min(self.size, length - part * self.size)
                    rows.append((offset + inner, count, slot_index, inner))
            offset += slot.numel
        return rows

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def mask(self) -> Tensor:
        """`[T, size]`, True where a token holds a number."""
        counts = torch.tensor([count for _, count, _, _ in self._rows])
        return torch.arange(self.size) < counts[:, None]

    @cached_property
    def index(self) -> Tensor:
        """`[T, size]`, position in the flat vector; 0 under the mask."""
        starts = torch.tensor([start for start, _, _, _ in self._rows])
        return (starts[:, None] + torch.arange(self.size)).masked_fill(~self.mask, 0)

    @cached_property
    def positions(self) -> Tensor:
        """`[T, 3]`: layer (0 without one, else 1 + layer), slot, number of the token in it."""
        number: dict[int, int] = {}
        out = []
        for _, _, slot, _ in self._rows:
            number[slot] = number.get(slot, -1) + 1
            layer = self.spec.slots[slot].layer
            out.append((0 if layer is None else layer + 1, slot, number[slot]))
        return torch.tensor(out)

    def encode(self, flat: Tensor) -> Tensor:
        """Flat `[B, numel]` → tokens `[B, T, size]`, zero under the mask."""
        if flat.dim() != 2 or flat.shape[1] != self.spec.numel:
            raise WeightsError(f"expected [B, {self.spec.numel}], got {list(flat.shape)}")
        tokens = flat[:, self.index.to(flat.device).flatten()].unflatten(1, self.index.shape)
        return tokens.masked_fill(~self.mask.to(flat.device), 0)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens `[B, T, size]` → flat `[B, numel]`; what stands under the mask is ignored."""
        if tuple(tokens.shape[1:]) != (len(self), self.size):
            raise WeightsError(f"expected [B, {len(self)}, {self.size}], got {list(tokens.shape)}")
        # Every number sits in exactly one token: the masked tokens in order of flat position.
        mask, index = self.mask.to(tokens.device), self.index.to(tokens.device)
        order = torch.empty(self.spec.numel, dtype=torch.long, device=tokens.device)
        order[index[mask]] = mask.flatten().nonzero().flatten()
        return tokens.flatten(1)[:, order]
