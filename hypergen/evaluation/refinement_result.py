"""What an evaluation of test-time tuning found: numbers and table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergen.evaluation.bootstrap import Bootstrap, Scores
from hypergen.evaluation.table import aligned, percent, span

LABELS = {
    "refined": "generated, refined",
    "searched": "condition searched",
    "multitask": "multi-task, tuned",
    "scratch": "from scratch",
}


@dataclass(frozen=True, eq=False)
class Curve:
    """How soon ordinary training reaches a share of the oracle's score.

    Attributes:
        steps: Most steps.
        first: Start (`generated`, `scratch`) → `[n]`, the first step at which a task's score was
            that high; -1 where it never was.
    """

    steps: int
    first: Mapping[str, Tensor]

    def until(self, start: str) -> Tensor:
        """`[n]` steps, the most where the score was never reached."""
        at = self.first[start]
        return torch.where(at < 0, self.steps, at)


@dataclass(frozen=True, eq=False)
class RefinementSplit:
    """One split.

    Attributes:
        name: Its name.
        names: Names of its tasks.
        rows: Steps K → method → scores.
        fixed: `base`, and `oracle` if there is one.
        curve: How soon training reaches the oracle, if it was asked for.
        resamples: Resamples of the bootstrap.
        seed: Its seed.
    """

    name: str
    names: list[str]
    rows: dict[int, dict[str, Scores]]
    fixed: dict[str, Scores]
    curve: Curve | None
    resamples: int
    seed: int

    @property
    def bootstrap(self) -> Bootstrap:
        """Resamples of the tasks, the same for all methods: differences are paired."""
        return Bootstrap(len(self.names), self.resamples, self.seed)

    def differences(self) -> dict[int, dict[str, Any]]:
        """K → difference → its mean and interval.

        `…_over_generated` against zero steps (the generated weights), `…_over_scratch` against as
        many steps from scratch.
        """
        draws, out = self.bootstrap, {}
        generated = next(iter(self.rows.values())).get("refined") if 0 in self.rows else None
        for k, row in self.rows.items():
            found: dict[str, Any] = {}
            for method in ("refined", "searched"):
                for other, scores in (("generated", generated), ("scratch", row["scratch"])):
                    if scores is not None and (k or other == "scratch"):
                        low, high = draws.difference(row[method], scores)
                        mean = row[method].mean - scores.mean
                        found[f"{method}_over_{other}"] = {"mean": mean, "ci": [low, high]}
            out[k] = found
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        draws = self.bootstrap

        def told(scores: Scores) -> dict[str, Any]:
            return {
                "mean": scores.mean,
                "ci": list(draws.interval(draws.means(scores))),
                "per_task": scores.values.tolist(),
            }

        out: dict[str, Any] = {
            "tasks": self.names,
            "fixed": {name: told(scores) for name, scores in self.fixed.items()},
            "steps": {
                str(k): {method: told(scores) for method, scores in row.items()}
                for k, row in self.rows.items()
            },
            "differences": {str(k): found for k, found in self.differences().items()},
        }
        if self.curve is not None:
            out["curve"] = {
                "most_steps": self.curve.steps,
                **{
                    name: {
                        "first": at.tolist(),
                        "mean": float(self.curve.until(name).double().mean()),
                        "median": float(self.curve.until(name).double().median()),
                        "reached": float((at >= 0).double().mean()),
                        "ci": list(self._interval(self.curve.until(name))),
                    }
                    for name, at in self.curve.first.items()
                },
            }
        return out

    def _interval(self, values: Tensor) -> tuple[float, float]:
        return self.bootstrap.interval(self.bootstrap.means(Scores.of(values.double())))

    def table(self, share: float) -> list[str]:
        """Lines: a row for each K, then what is paired, then the curve."""
        draws = self.bootstrap
        methods = [m for m in LABELS if m in next(iter(self.rows.values()))]
        rows = [["steps", *(LABELS[m] for m in methods)]]
        for k, row in self.rows.items():
            cells = [
                f"{percent(row[m].mean)} ({span(draws.interval(draws.means(row[m])))})"
                for m in methods
            ]
            rows.append([str(k), *cells])
        fixed = ", ".join(f"{name} {percent(s.mean)}" for name, s in self.fixed.items())
        lines = [f"{self.name}: {len(self.names)} tasks; {fixed}", *aligned(rows)]
        last = max(self.rows)
        for what, found in self.differences()[last].items():
            method, _, other = what.partition("_over_")
            lines.append(
                f"{LABELS[method]} over {other if other == 'generated' else LABELS[other]}, {last} "
                f"steps: {100 * found['mean']:+.1f} ({span(found['ci'], '+.1f')})"
            )
        if self.curve is not None:
            for name, at in self.curve.first.items():
                until = self.curve.until(name).double()
                low, high = self._interval(until)
                reached = float((at >= 0).double().mean())
                lines.append(
                    f"steps to {share:.0%} of the oracle, start {name}: mean {until.mean():.1f} "
                    f"({low:.1f} to {high:.1f}), median {until.median():.0f}; reached on "
                    f"{reached:.0%} of the tasks within {self.curve.steps}"
                )
        return lines


@dataclass(frozen=True, eq=False)
class Refinement:
    """What `evaluate_refinement` returns.

    Attributes:
        splits: Name → result.
        settings: Demonstrations, the learning rates chosen, and where.
        seconds: How long it took.
    """

    splits: dict[str, RefinementSplit]
    settings: dict[str, Any]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
            "settings": self.settings,
            "seconds": self.seconds,
        }

    def to_table(self) -> str:
        """For a terminal: scores in percent with 95% intervals over tasks."""
        rates = ", ".join(f"{LABELS[m]} {r:g}" for m, r in self.settings["learning_rates"].items())
        lines = [f"{self.settings['demonstrations']} demonstrations a task; learning rates {rates}"]
        for split in self.splits.values():
            lines += ["", *split.table(self.settings["share"])]
        return "\n".join(lines)
