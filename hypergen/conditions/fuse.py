"""Several conditions as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError
from hypergen.conditions.base import Condition, ConditionEncoder


class FusedEncoder(ConditionEncoder):
    """Joins the tokens of several encoders (text + demos + graph, …) into one condition.

    Each part is projected to a common width and marked with a learned vector of its own. Parts may
    be absent, from the whole batch (not given) or from some of its rows (None or an empty list in
    their place); at least one must be there in every row. Constant parts (`BaseWeightsEncoder`) are
    there without being given. The pooled vector is the mean of those of the parts that are there.
    Signals are those of all parts, one after the other, zero where a part is absent. Weights are
    those of the part that has some, in every row.

    Args:
        encoders: Input name → encoder.
        dim: Common width.
    """

    input_name: ClassVar[str] = "fused"

    def __init__(self, encoders: Mapping[str, ConditionEncoder | dict[str, Any]], dim: int) -> None:
        super().__init__()
        if not encoders:
            raise ConditionError("FusedEncoder needs at least one encoder")
        built = {
            name: e if isinstance(e, ConditionEncoder) else ConditionEncoder.from_dict(e)
            for name, e in sorted(encoders.items())
        }
        self.encoders = nn.ModuleDict(built)
        self.projections = nn.ModuleDict({n: nn.Linear(e.dim, dim) for n, e in built.items()})
        self.marks = nn.ParameterDict({n: nn.Parameter(torch.randn(dim) * 0.02) for n in built})
        self._dim = dim
        self.signal_names = tuple(s for e in built.values() for s in e.signal_names)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the parts that are given with each condition."""
        return tuple(name for name, encoder in self._parts().items() if not encoder.constant)

    @property
    def dim(self) -> int:
        """Width D of the tokens."""
        return self._dim

    def _parts(self) -> dict[str, ConditionEncoder]:
        return {n: e for n, e in self.encoders.items() if isinstance(e, ConditionEncoder)}

    def config(self) -> dict[str, Any]:
        """Constructor arguments, with the parts' own."""
        return {"encoders": {n: e.to_dict() for n, e in self._parts().items()}, "dim": self._dim}

    def forward(self, inputs: Any) -> Condition:
        """Encodes a mapping input name → batch of raw inputs (all of one length).

        Raises:
            ConditionError: No known part given, an unknown one, batches of different sizes, or a
                row without any part; says which.
        """
        parts = self._parts()
        unknown = sorted(set(inputs) - set(parts))
        given = {name: value for name, value in inputs.items() if not _is_absent(value)}
        if unknown or not given:
            raise ConditionError(
                f"this encoder takes {', '.join(parts)}"
                + (f", not {unknown[0]!r}" if unknown else ": give at least one")
            )
        # Encoded without the rows that a part is absent from.
        made = {name: _encode(parts[name], given[name]) for name in parts if name in given}
        sizes = [len(there) for _, there in made.values()]
        if len(set(sizes)) > 1:
            raise ConditionError(f"parts have different batch sizes {sizes}")
        rows = sizes[0]
        any_there = torch.stack([there for _, there in made.values()]).any(0)
        if not bool(any_there.all()):
            nothing = int((~any_there).nonzero()[0])
            raise ConditionError(f"input {nothing} has no part: give {' or '.join(made)}")
        tokens, masks, pooled, present, signals, weights = [], [], [], [], [], None
        for name, encoder in parts.items():
            weight = self.marks[name]
            if name not in made and not encoder.constant:
                if encoder.signal_names:
                    signals.append(weight.new_zeros(rows, len(encoder.signal_names)))
                continue
            everywhere = torch.ones(rows, dtype=torch.bool)
            part, there = made[name] if name in made else (encoder(rows), everywhere)
            part, there = part.to(weight.device), there.to(weight.device)
            own = self.projections[name](part.tokens) + weight
            tokens.append(_spread(own, there))
            masks.append(_spread(part.mask, there))
            pooled.append(_spread(self.projections[name](part.pooled) + weight, there))
            present.append(there)
            if part.signals is not None:
                signals.append(_spread(part.signals, there))
            if part.weights is not None:
                if not bool(there.all()):
                    absent = int((~there).nonzero()[0])
                    raise ConditionError(f"input {absent} has no {name}: every input needs them")
                weights = part.weights
        mask = torch.cat(masks, 1)
        joined = torch.cat(tokens, 1).masked_fill(~mask[..., None], 0)
        mean = torch.stack(pooled).sum(0) / torch.stack(present).sum(0)[:, None]
        return Condition(joined, mask, mean, torch.cat(signals, 1) if signals else None, weights)


def _is_nothing(value: Any) -> bool:
    """Whether an input, or a part of a row, is absent."""
    return value is None or (isinstance(value, (list, tuple)) and not value)


def _is_absent(value: Any) -> bool:
    """Whether an input is absent from all rows."""
    if _is_nothing(value):
        return True
    return isinstance(value, (list, tuple)) and all(map(_is_nothing, value))


def _encode(encoder: ConditionEncoder, value: Any) -> tuple[Condition, Tensor]:
    """A part's condition of the rows that have it, and which rows those are, `[B]` bool."""
    if not isinstance(value, (list, tuple)) or not any(map(_is_nothing, value)):
        made = encoder(value)
        return made, torch.ones(len(made), dtype=torch.bool)
    there = [not _is_nothing(row) for row in value]
    kept = [row for row, is_there in zip(value, there, strict=True) if is_there]
    return encoder(kept), torch.tensor(there)


def _spread(values: Tensor, there: Tensor) -> Tensor:
    """Rows `[b, …]` of those that are there, put into `[B, …]` with zeros in between."""
    if len(values) == len(there):
        return values
    out = values.new_zeros(len(there), *values.shape[1:])
    return out.index_put((there.nonzero()[:, 0],), values)
