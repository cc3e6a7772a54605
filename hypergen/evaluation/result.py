"""What an evaluation found: numbers with intervals, as JSON and as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hypergen.evaluation.bootstrap import Bootstrap, Interval, Scores, gap_closed
from hypergen.evaluation.calibration import Calibration
from hypergen.evaluation.compare import WeightComparison

# In the order of tables.
LABELS = {
    "base": "unchanged base",
    "base_plain": "unchanged base, no description shown",
    "incontext": "unchanged base with demonstrations",
    "mean": "zoo mean",
    "nearest": "nearest description",
    "shuffled": "shuffled description",
    "multitask": "multi-task adapter",
    "multitask_plain": "multi-task adapter, no description shown",
    "generated": "generated",
    "generated_plain": "generated, no description shown",
    "oracle": "trained on the task",
}
# What the notes do not compare with: the ceiling, and the generated weights themselves.
_NO_BASELINE = ("oracle", "generated_plain")


@dataclass(frozen=True)
class SplitResult:
    """One split.

    Attributes:
        name: Its name.
        tasks: `[n]` task numbers.
        names: Their names.
        wordings: Split of the wordings.
        scores: Method → its scores; methods that do not apply are absent.
        means: Method → mean over tasks.
        ci: Method, `gap_closed` or `gap_closed_shuffled` → 95% interval.
        gaps: `gap_closed`, `gap_closed_shuffled`, where the oracle applies and wins anything.
        versus: Method → generated minus that method: difference and paired interval.
        metrics: Method → what the suite measures beside the score → its mean over tasks.
        expected: `[P]` expected gains of the descriptions, if the generator states them.
        weights: Generated against oracle weights.
    """

    name: str
    tasks: Tensor
    names: list[str]
    wordings: str
    scores: dict[str, Scores]
    means: dict[str, float]
    ci: dict[str, Interval]
    gaps: dict[str, float]
    versus: dict[str, tuple[float, Interval]]
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    expected: Tensor | None = None
    weights: WeightComparison | None = None

    @property
    def base(self) -> Tensor:
        """`[P]`, the base's score where each description's weights were scored."""
        base, generated = self.scores["base"], self.scores["generated"]
        if len(base.values) == len(base.per_task):  # one for each task
            return base.values[generated.unit]
        return base.values

    @property
    def gain(self) -> Tensor:
        """`[P]`, measured gain of each description's weights over the base."""
        return self.scores["generated"].values - self.base

    @property
    def gain_per_task(self) -> Tensor:
        """`[n]`, measured gain of each task over the base."""
        return self.scores["generated"].per_task - self.scores["base"].per_task

    def to_dict(self) -> dict[str, Any]:
        """The keys that `hypergen evaluate --json` prints for a split."""
        return {
            "n": len(self.tasks),
            **self.means,
            **self.gaps,
            "ci95": {name: list(interval) for name, interval in self.ci.items()},
            **({"metrics": self.metrics} if self.metrics else {}),
        }

    def details(self) -> dict[str, Any]:
        """What only `metrics.json` holds."""
        generated = self.scores["generated"]
        return {
            "wordings": self.wordings,
            "descriptions": len(generated.values),
            "spread_over_descriptions": float(generated.spread.nanmean()),
            "generated_minus": {
                method: {"difference": difference, "ci95": list(interval)}
                for method, (difference, interval) in self.versus.items()
            },
            "tasks": {
                name: {
                    "generated": float(generated.per_task[i]),
                    "spread": float(generated.spread[i]),
                    "descriptions": int(generated.counts[i]),
                }
                for i, name in enumerate(self.names)
            },
            "weights": None if self.weights is None else self.weights.to_dict(),
        }


@dataclass(frozen=True)
class Evaluation:
    """All splits of one evaluation.

    Attributes:
        splits: Name → result.
        calibration: Of the expected gain, if the generator states one.
        settings: What it was measured with, JSON-serialisable.
        seconds: How long it took.
    """

    splits: dict[str, SplitResult]
    calibration: Calibration | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `hypergen evaluate` and `hypergen demo`.

        A task that is in several splits has its scores of the first one under `tasks`.
        """
        tasks: dict[str, dict[str, float]] = {}
        for split in self.splits.values():
            for i, name in enumerate(split.names):
                if name not in tasks:
                    values = {m: float(s.per_task[i]) for m, s in split.scores.items()}
                    tasks[name] = {m: v for m, v in values.items() if math.isfinite(v)}
        return {
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
            "tasks": tasks,
            "seconds": self.seconds,
        }

    def details(self) -> dict[str, Any]:
        """What `metrics.json` holds beside `to_dict`."""
        return {
            "settings": self.settings,
            "splits": {name: split.details() for name, split in self.splits.items()},
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers.

        One sentence for each baseline that the generated weights do not beat for certain, and one
        where descriptions were too long for the encoder.
        """
        lines = []
        for split in self.splits.values():
            for method, (difference, (low, high)) in split.versus.items():
                if method not in _NO_BASELINE and not low > 0:
                    verb = "is below" if high < 0 else "does not clearly beat"
                    lines.append(
                        f"{split.name}: generated {verb} the {LABELS[method]} "
                        f"(difference {difference:+.3f}, 95% CI {low:+.3f} to {high:+.3f}, "
                        f"{len(split.tasks)} tasks)."
                    )
        cut = self.settings.get("descriptions_cut_for_the_encoder", {})
        lines += [
            f"{name}: {count} descriptions are longer than the encoder takes; the generator read "
            "their beginning."
            for name, count in cut.items()
        ]
        return lines

    def to_table(self) -> str:
        """For a terminal, see `hypergen.evaluation.table`; then the notes."""
        from hypergen.evaluation.table import table

        notes = self.notes()
        return "\n".join([*table(self.splits), *([""] if notes else []), *notes])


def summarise(scores: dict[str, Scores], bootstrap: Bootstrap) -> dict[str, Any]:
    """Means, intervals, gaps and paired differences of one split's scores."""
    means = {method: value.mean for method, value in scores.items()}
    draws = {method: bootstrap.means(value) for method, value in scores.items()}
    ci = {method: bootstrap.interval(draw) for method, draw in draws.items()}
    gaps: dict[str, float] = {}
    if "oracle" in scores:
        # Over the tasks that have an oracle.
        has = torch.isfinite(scores["oracle"].per_task)
        over = scores if bool(has.all()) else {m: _only(s, has) for m, s in scores.items()}
        drawn = draws if over is scores else {m: bootstrap.means(s) for m, s in over.items()}
        for method, name in (("generated", "gap_closed"), ("shuffled", "gap_closed_shuffled")):
            if method in scores:
                mean = {m: over[m].mean for m in (method, "base", "oracle")}
                gap = float(gap_closed(mean[method], mean["base"], mean["oracle"]))
                if math.isfinite(gap):
                    gaps[name] = gap
                    closed = gap_closed(drawn[method], drawn["base"], drawn["oracle"])
                    ci[name] = bootstrap.interval(closed)
    versus = {}
    for method, value in scores.items():
        if method != "generated":
            # Over the tasks that both have, so that the difference is paired.
            both = value.per_task - scores["generated"].per_task
            difference = -float(both.nanmean())
            if bool(torch.isnan(value.per_task).any()):
                interval = bootstrap.interval(-bootstrap.means(Scores.of(both)))
            else:
                interval = bootstrap.interval(draws["generated"] - draws[method])
            versus[method] = (difference, interval)
    return {"means": means, "ci": ci, "gaps": gaps, "versus": versus}


def _only(scores: Scores, kept: Tensor) -> Scores:
    """The scores of some of the tasks; the others have none."""
    inside = kept[scores.unit]
    return Scores(scores.values[inside], scores.unit[inside], scores.units)
