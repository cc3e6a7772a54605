"""Several conditions as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from hypergen._utils.errors import ConditionError
from hypergen.conditions.base import Condition, ConditionEncoder


class FusedEncoder(ConditionEncoder):
    """Joins the tokens of several encoders (text + demos + graph, …) into one condition.

    Each part is projected to a common width and marked with a learned vector of its own. Parts may
    be absent (per batch); at least one must be there. Constant parts (`BaseWeightsEncoder`) are
    there without being given. The pooled vector is the mean of the parts'.

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
            ConditionError: No known part given, an unknown one, or batches of different sizes.
        """
        parts = self._parts()
        unknown = sorted(set(inputs) - set(parts))
        if unknown or not inputs:
            raise ConditionError(
                f"this encoder takes {', '.join(parts)}"
                + (f", not {unknown[0]!r}" if unknown else ": give at least one")
            )
        made = {name: encoder(inputs[name]) for name, encoder in parts.items() if name in inputs}
        rows = len(next(iter(made.values())))
        tokens, masks, pooled = [], [], []
        for name, encoder in parts.items():
            if name not in made and not encoder.constant:
                continue
            part = made[name] if name in made else encoder(rows)
            weight = self.marks[name]
            part = part.to(weight.device)
            tokens.append(self.projections[name](part.tokens) + weight)
            masks.append(part.mask)
            pooled.append(self.projections[name](part.pooled) + weight)
        if len({len(t) for t in tokens}) > 1:
            raise ConditionError(f"parts have different batch sizes {[len(t) for t in tokens]}")
        mask = torch.cat(masks, 1)
        joined = torch.cat(tokens, 1).masked_fill(~mask[..., None], 0)
        return Condition(joined, mask, torch.stack(pooled).mean(0))
