"""How well properties of networks are predicted from their weights: numbers and table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypergen.evaluation.bootstrap import Interval
from hypergen.evaluation.table import aligned

LABELS = {"embedding": "embedding", "statistics": "layer statistics"}


@dataclass(frozen=True, eq=False)
class PropertyScore:
    """How well one property is predicted on held-out runs.

    Attributes:
        r2: Method → R² on the test runs.
        ci: Method → its interval over test runs.
        difference: R² of the embedding minus that of the statistics, with its interval.
        penalty: Method → the ridge penalty, chosen on the validation runs.
    """

    r2: dict[str, float]
    ci: dict[str, Interval]
    difference: tuple[float, Interval] | None
    penalty: dict[str, float]


@dataclass(frozen=True, eq=False)
class PropertyPrediction:
    """Properties of the networks of a zoo, predicted from their weights.

    Attributes:
        scores: Name of the property → scores.
        checkpoints: Split → number of checkpoints.
        runs: Split → number of runs.
        notes: Sentences about what was done.
    """

    scores: dict[str, PropertyScore]
    checkpoints: dict[str, int]
    runs: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {
            "properties": {
                name: {
                    "r2": score.r2,
                    "ci": {method: list(ci) for method, ci in score.ci.items()},
                    "difference": None
                    if score.difference is None
                    else {"r2": score.difference[0], "ci": list(score.difference[1])},
                    "penalty": score.penalty,
                }
                for name, score in self.scores.items()
            },
            "checkpoints": self.checkpoints,
            "runs": self.runs,
            "notes": self.notes,
        }

    def to_table(self) -> str:
        """R² on held-out runs, one row a property."""
        methods = [m for m in LABELS if any(m in s.r2 for s in self.scores.values())]
        head = [cell for m in methods for cell in (f"R² {LABELS[m]}", "95% CI")]
        rows = [["property", *head, "difference", "95% CI"]]
        for name, score in self.scores.items():
            cells = [name]
            for method in methods:
                cells += [f"{score.r2[method]:.3f}", _span(score.ci[method])]
            if score.difference is None:
                cells += ["-", "-"]
            else:
                cells += [f"{score.difference[0]:+.3f}", _span(score.difference[1])]
            rows.append(cells)
        counts = ", ".join(
            f"{name} {self.checkpoints[name]} of {self.runs[name]} runs" for name in self.runs
        )
        return "\n".join([*aligned(rows), f"checkpoints: {counts}", *self.notes])


def _span(interval: Interval) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"
