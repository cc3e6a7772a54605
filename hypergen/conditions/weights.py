"""The weights that a network has now as a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError
from hypergen.conditions.base import Condition, ConditionEncoder
from hypergen.conditions.numbers import fourier


class WeightsEncoder(ConditionEncoder):
    """Current weights, cut into tokens that know their place.

    A token (numbers next to each other, z-scored by the spread of each slot over the training set)
    is projected, and the sines and cosines of its position (layer, slot, number in the slot) are
    added; all tokens share the projections. The weights themselves travel along
    (`Condition.weights`), so that generators of changes to them know what to add to: G.pt (Peebles
    et al., 2022, arXiv:2209.12892) puts out the current weights plus a difference.

    Args:
        slots: Name and number of entries of each slot, in the order of the flat weights.
        rows: Of each token: first entry in the flat weights, number of entries, and position
            (layer, slot, number in the slot); see `from_layout`.
        dim: Width of the tokens.
        pool: Make one token, the mean over all after a small network, where the generator reads
            `Condition.weights` place by place anyway.

    Raises:
        ConditionError: No slot or token, or tokens outside of the weights.
    """

    input_name: ClassVar[str] = "weights"

    def __init__(
        self,
        slots: Sequence[tuple[str, int]],
        rows: Sequence[Sequence[int]],
        dim: int = 64,
        pool: bool = False,
    ) -> None:
        super().__init__()
        if not slots or not rows or dim < 1:
            raise ConditionError("WeightsEncoder needs slots, rows and a positive dim")
        self.slots = [(str(name), int(numel)) for name, numel in slots]
        self.numel = sum(numel for _, numel in self.slots)
        table = torch.tensor(rows, dtype=torch.long)
        start, count, position = table[:, 0], table[:, 1], table[:, 2:]
        if position.shape[1:] != (3,) or int((start + count).max()) > self.numel:
            raise ConditionError(f"the rows are no tokens of {self.numel} numbers")
        self.rows, self._dim, self.pool = table.tolist(), dim, pool
        size = int(count.max())
        entries = start[:, None] + torch.arange(size)
        mask = torch.arange(size) < count[:, None]
        sizes = torch.tensor([numel for _, numel in self.slots])
        buffers = {
            "index": entries.masked_fill(~mask, 0),
            "mask": mask,
            "slot": torch.arange(len(sizes)).repeat_interleave(sizes),
            "place": fourier(position.float(), 8, base=1.8).flatten(1),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("mean", torch.zeros(len(sizes)))
        self.register_buffer("std", torch.ones(len(sizes)))
        self.index: Tensor
        self.mask: Tensor
        self.slot: Tensor
        self.place: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.project = nn.Linear(size, dim)
        self.position = nn.Linear(self.place.shape[1], dim)
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim)) if pool else nn.Identity()

    @classmethod
    def from_layout(cls, layout: Any, dim: int = 64, pool: bool = False) -> WeightsEncoder:
        """Takes the tokens of a `TokenLayout`, and the slots of its spec."""
        slots = [(slot.name, slot.numel) for slot in layout.spec]
        first, count = layout.index[:, 0].tolist(), layout.mask.sum(1).tolist()
        places = layout.positions.tolist()
        rows = [[f, c, *p] for f, c, p in zip(first, count, places, strict=True)]
        return cls(slots, rows, dim, pool)

    @property
    def dim(self) -> int:
        """Width D of the tokens."""
        return self._dim

    def config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {
            "slots": [list(slot) for slot in self.slots],
            "rows": self.rows,
            "dim": self._dim,
            "pool": self.pool,
        }

    @torch.no_grad()
    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Takes mean and spread of every slot over the training set, `[slots]` each."""
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-8, std, 1.0))

    def forward(self, inputs: Any) -> Condition:
        """Encodes weights → tokens `[B, T, dim]` (`[B, 1, dim]` with `pool`).

        Args:
            inputs: `Weights`, flat numbers `[B, numel]` or `[numel]`, tensors by slot name (one
                network), or a list of these.

        Raises:
            ConditionError: Other slots, another length, or (when not training) NaN or infinity;
                names the slot.
        """
        flat = self._read(inputs)
        if not self.training and not bool(torch.isfinite(flat).all()):
            bad = int((~torch.isfinite(flat)).any(0).nonzero()[0])
            name = self.slots[int(self.slot[bad])][0]
            raise ConditionError(f"the given weights hold NaN or infinity in slot {name!r}")
        z = (flat - self.mean[self.slot]) / self.std[self.slot]
        cut = z[:, self.index.flatten()].unflatten(1, self.index.shape).masked_fill(~self.mask, 0)
        tokens = self.mix(self.project(cut) + self.position(self.place))
        tokens = tokens.mean(1, keepdim=True) if self.pool else tokens
        out = Condition.from_tokens(tokens)
        return Condition(out.tokens, out.mask, out.pooled, weights=flat)

    def _read(self, inputs: Any) -> Tensor:
        """`[B, numel]` of anything that `forward` takes."""
        if isinstance(inputs, Sequence) and not isinstance(inputs, str):
            rows = [self._row(row) for row in inputs]
            if not rows:
                raise ConditionError("no weights given")
            return torch.cat(rows)
        return self._row(inputs)

    def _row(self, inputs: Any) -> Tensor:
        names = [name for name, _ in self.slots]
        theirs = list(inputs) if isinstance(inputs, Mapping) else None
        if hasattr(inputs, "spec") and hasattr(inputs, "flat"):  # Weights
            theirs, inputs = list(inputs.spec.names), inputs.flat()
        if theirs is not None and sorted(theirs) != sorted(names):
            other = sorted(set(names) ^ set(theirs))[0]
            whose = "lack" if other in names else "have"
            raise ConditionError(f"the given weights {whose} the slot {other!r}")
        if isinstance(inputs, Mapping):
            tensors = [torch.as_tensor(inputs[name]) for name in names]
            for (name, numel), tensor in zip(self.slots, tensors, strict=True):
                if tensor.numel() != numel:
                    raise ConditionError(
                        f"the given weights have {tensor.numel()} numbers in slot {name!r}, "
                        f"expected {numel}"
                    )
            inputs = torch.cat([tensor.flatten() for tensor in tensors])
        flat = torch.as_tensor(inputs).to(self.project.weight)
        flat = flat[None] if flat.dim() == 1 else flat
        if flat.dim() != 2 or flat.shape[1] != self.numel or not len(flat):
            raise ConditionError(
                f"the given weights have shape {list(flat.shape)}, expected [B, {self.numel}]"
            )
        return flat
