"""TokenCodec: normalised weights, cut into tokens, and back; nothing is lost."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from hypergen._utils.errors import SpecError
from hypergen.generators.diffusion.codec import WeightCodec
from hypergen.specs import TokenLayout, WeightSpec

Normalize = Literal["entry", "slot", "global", "none"]


class TokenCodec(WeightCodec):
    """Weights in units of their spread over the zoo, cut by a `TokenLayout`.

    Cost: one gather each way, and two numbers a statistic.

    Args:
        spec: The weights.
        size: Width of a token.
        by: Where tokens begin: `"flat"`, `"slot"` or `"channel"`, see `TokenLayout`.
        normalize: What shares mean and spread: every `"entry"` has its own, those of a `"slot"`, or
            all of the network (`"global"`, as in Peebles et al., "Learning to Learn with Generative
            Models of Neural Network Checkpoints", 2022, arXiv:2209.12892; neither this nor `"slot"`
            breaks the symmetry of hidden units). `"none"` leaves the numbers as they are.
        floor: Smallest spread, relative to the median one: entries that hardly vary over the zoo
            are not blown up.

    Raises:
        SpecError: A setting is out of range.
    """

    def __init__(
        self,
        spec: WeightSpec,
        size: int = 64,
        by: Literal["flat", "slot", "channel"] = "slot",
        normalize: Normalize = "entry",
        floor: float = 0.1,
    ) -> None:
        options = {"size": size, "by": by, "normalize": normalize, "floor": floor}
        super().__init__(spec, options)
        if normalize not in get_args(Normalize):
            raise SpecError(f"weights are normalised by entry, slot, global or none: {normalize!r}")
        if floor < 0:
            raise SpecError(f"floor must not be negative, but is {floor}")
        self.normalize, self.floor = normalize, floor
        self.layout = TokenLayout(spec, size, by)
        self._sizes = torch.tensor([slot.numel for slot in spec])
        # What follows from the layout, kept where the weights are.
        for name, value in (("index", self.layout.index), ("real", self.layout.mask)):
            self.register_buffer(name, value, persistent=False)
        order = torch.empty(spec.numel, dtype=torch.long)
        order[self.layout.index[self.layout.mask]] = self.layout.mask.flatten().nonzero().flatten()
        self.register_buffer("order", order, persistent=False)
        entries = {"entry": spec.numel, "slot": len(spec), "global": 1, "none": 1}[normalize]
        # Until it is fitted: a network at its start, in units of its slots' scales.
        mean, std = torch.zeros(entries), torch.ones(entries)
        if normalize == "entry":
            mean, std = spec.initial(0), spec.per_entry("scale")
        elif normalize == "slot":
            mean = torch.tensor([slot.mean for slot in spec])
            std = torch.tensor([slot.scale for slot in spec])
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.index: Tensor
        self.real: Tensor
        self.order: Tensor
        self.mean: Tensor
        self.std: Tensor

    @property
    def tokens(self) -> int:
        """Number T of tokens."""
        return len(self.layout)

    @property
    def dim(self) -> int:
        """Width D of a token."""
        return self.layout.size

    @property
    def mask(self) -> Tensor:
        """`[T, D]` bool, False where a token holds no number."""
        return self.layout.mask

    @property
    def positions(self) -> Tensor:
        """`[T, 3]`, see `TokenLayout.positions`."""
        return self.layout.positions

    def describe(self, token: int) -> str:
        """Names the slot that a token begins in."""
        _, slot, number = self.positions[token].tolist()
        return f"token {number} of slot {self.spec.names[slot]!r}"

    def fit_statistics(self, flat: Tensor) -> None:
        """Takes mean and spread over the checkpoints."""
        if self.normalize == "none":
            return
        if self.normalize == "entry":
            mean = _column_mean(flat)
            std = _column_mean((flat - mean).square()).sqrt()
        else:
            # Of a slot, or of all, at once: moments of the entries and of their means.
            entries = _column_mean(flat)
            inner = _column_mean((flat - entries).square())
            sizes = self._sizes.tolist() if self.normalize == "slot" else [self.spec.numel]
            mean = torch.stack([part.mean() for part in entries.split(sizes)])
            between = [part.var(correction=0) for part in entries.split(sizes)]
            within = [part.mean() for part in inner.split(sizes)]
            std = (torch.stack(within) + torch.stack(between)).sqrt()
        self.mean.copy_(mean)
        # Checkpoints that are all equal have no spread: their differences are left as they are.
        median = float(std.median()) or float(std.max()) or 1.0
        std = std.clamp(min=self.floor * median)
        self.std.copy_(torch.where(std > 0, std, median))

    def encode(self, flat: Tensor) -> Tensor:
        """Flat `[B, numel]` → tokens `[B, T, D]`, zero under the mask."""
        self.check(flat)
        if self.normalize != "none":
            flat = (flat - self._spread(self.mean)) / self._spread(self.std)
        tokens = flat[:, self.index.flatten()].unflatten(1, self.index.shape)
        return tokens.masked_fill(~self.real, 0)

    def decode(self, latents: Tensor) -> Tensor:
        """Tokens `[B, T, D]` → flat `[B, numel]`."""
        flat = latents.flatten(1)[:, self.order]
        if self.normalize == "none":
            return flat
        return self._spread(self.mean) + self._spread(self.std) * flat

    def _spread(self, values: Tensor) -> Tensor:
        """One value for each entry, `[numel]`, or one for all, `[1]`."""
        if self.normalize != "slot":
            return values
        return values.repeat_interleave(self._sizes.to(values.device), output_size=self.spec.numel)


def _column_mean(values: Tensor) -> Tensor:
    """Mean over the rows, in float64 whatever the dtype."""
    return values.mean(0, dtype=torch.float64)
