"""Hyperparameters that are drawn anew for every run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.seeding import stable_seed

KINDS = ("choice", "log_uniform", "uniform")


@dataclass(frozen=True)
class Range:
    """Where a number comes from.

    In YAML it is the number itself, `{uniform: [LOW, HIGH]}`, `{log_uniform: [LOW, HIGH]}` or
    `{choice: [A, B, …]}`.

    Attributes:
        kind: `"choice"`, `"uniform"` or `"log_uniform"`.
        values: The choices, or the lower and the upper end.

    Raises:
        UsageError: An unknown kind, or ends from which nothing can be drawn.
    """

    kind: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"no range '{self.kind}'.{did_you_mean(self.kind, KINDS)}")
        for value in self.values:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise UsageError(f"a range holds finite numbers, not {value!r}")
        if self.kind == "choice":
            if not self.values:
                raise UsageError("choice needs at least one number")
            return
        if len(self.values) != 2 or self.values[0] > self.values[1]:
            raise UsageError(f"{self.kind} needs [LOW, HIGH], not {list(self.values)}")
        if self.kind == "log_uniform" and self.values[0] <= 0:
            raise UsageError(f"log_uniform needs numbers above 0, not {self.values[0]}")

    @staticmethod
    def from_plain(value: Any) -> Range:
        """Reads the YAML form.

        Raises:
            UsageError: The value is none.
        """
        if isinstance(value, Range):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return Range("choice", (float(value),))
        if isinstance(value, Mapping) and len(value) == 1:
            kind, values = next(iter(value.items()))
            if isinstance(values, (list, tuple)):
                return Range(str(kind), tuple(values))
        raise UsageError(
            "a number, {uniform: [LOW, HIGH]}, {log_uniform: [LOW, HIGH]} or {choice: [A, B]} is "
            f"needed, not {value!r}"
        )

    def to_plain(self) -> Any:
        """The YAML form."""
        if self.kind == "choice" and len(self.values) == 1:
            return self.values[0]
        return {self.kind: list(self.values)}

    def draw(self, *parts: object) -> float:
        """Draws a number that depends on the parts alone; see `stable_seed`."""
        seed = stable_seed(*parts)
        if self.kind == "choice":
            return self.values[seed % len(self.values)]
        share = seed / 2**63
        low, high = self.values
        if self.kind == "uniform":
            return low + share * (high - low)
        return min(high, max(low, math.exp(math.log(low) + share * math.log(high / low))))
