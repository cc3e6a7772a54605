"""What an evaluation of k demonstrations found: numbers, table and plot."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypergen._utils.figures import new_figure, png, tidy
from hypergen._utils.io import write_json
from hypergen.evaluation.bootstrap import Bootstrap, Interval, Scores
from hypergen.evaluation.plots import STYLE
from hypergen.evaluation.result import LABELS as ALL_LABELS
from hypergen.evaluation.table import aligned, percent, span

# In the order of tables; those of the first line change with k.
OF_K = ("generated", "incontext", "lora", "shuffled", "generated_plain")
FIXED = ("base", "mean", "multitask", "oracle")
LABELS = {
    **ALL_LABELS,
    "incontext": "demonstrations in the prompt",
    "lora": "trained on the demonstrations",
    "shuffled": "another task's condition",
}
_STYLE = {**STYLE, "lora": {"color": "#0072B2", "linestyle": (0, (5, 1.5)), "marker": "^"}}
METRICS_FILE = "few_shot.json"


@dataclass
class FewShotSplit:
    """One split.

    Attributes:
        name: Its name.
        names: Names of its tasks.
        rows: k → method → scores; methods that do not apply are absent.
        fixed: Method → scores that no demonstration changes.
        given: k → demonstrations that a task has, mean.
        shown: k → demonstrations that fit in the prompt, mean.
        resamples: Resamples of the bootstrap.
        seed: Its seed.
    """

    name: str
    names: list[str]
    rows: dict[int, dict[str, Scores]] = field(default_factory=dict)
    fixed: dict[str, Scores] = field(default_factory=dict)
    given: dict[int, float] = field(default_factory=dict)
    shown: dict[int, float] = field(default_factory=dict)
    resamples: int = 2000
    seed: int = 0

    def scores(self, k: int) -> dict[str, Scores]:
        """All methods at k, in the order of tables."""
        found = {**self.rows[k], **self.fixed}
        return {m: found[m] for m in (*OF_K, *FIXED) if m in found}

    @property
    def bootstrap(self) -> Bootstrap:
        """Resamples of the tasks, the same for every k and method."""
        return Bootstrap(len(self.names), self.resamples, self.seed)

    def interval(self, scores: Scores) -> Interval:
        """95% interval of the mean over tasks."""
        return self.bootstrap.interval(self.bootstrap.means(scores))

    def to_dict(self) -> dict[str, Any]:
        """The keys that `hypergen evaluate --k --json` prints for a split."""
        out: dict[str, Any] = {"n": len(self.names), "k": {}}
        for k in sorted(self.rows):
            scores = self.scores(k)
            out["k"][str(k)] = {
                **{method: value.mean for method, value in scores.items()},
                "ci95": {method: list(self.interval(v)) for method, v in scores.items()},
                "generated_minus": self._differences(scores),
                "demonstrations": self.given[k],
                **({"shown": self.shown[k]} if k in self.shown else {}),
            }
        return out

    def _differences(self, scores: dict[str, Scores]) -> dict[str, Any]:
        """Generated minus each method, paired by task."""
        if "generated" not in scores:
            return {}
        own, out = scores["generated"].per_task, {}
        for method, value in scores.items():
            if method != "generated":
                both = Scores.of(own - value.per_task)
                out[method] = {"difference": both.mean, "ci95": list(self.interval(both))}
        return out

    def table(self) -> list[str]:
        """A row for each method, a column for each k; in percent."""
        ks = sorted(self.rows)
        methods = [m for m in (*OF_K, *FIXED) if any(m in self.scores(k) for k in ks)]
        lines = [["method", *(f"k = {k}" for k in ks)]]
        for method in methods:
            cells = []
            for k in ks:
                found = self.scores(k).get(method)
                cells.append("-" if found is None else self._cell(found))
            lines.append([LABELS[method], *cells])
        return [f"{self.name}: {len(self.names)} tasks, 95% CI over tasks", *aligned(lines)]

    def _cell(self, scores: Scores) -> str:
        return f"{percent(scores.mean)} ({span(self.interval(scores))})"

    def plot(self) -> bytes:
        """Score against k, with intervals; what does not depend on k as level lines."""
        figure = new_figure(7.2, 4.6)
        axis = figure.subplots()
        ks = sorted(self.rows)
        place = {k: i for i, k in enumerate(ks)}
        for method in OF_K:
            here = [k for k in ks if method in self.rows[k]]
            if not here:
                continue
            means = [self.rows[k][method].mean for k in here]
            ends = [self.interval(self.rows[k][method]) for k in here]
            style = _STYLE[method]
            axis.plot(
                [place[k] for k in here],
                means,
                label=LABELS[method],
                linewidth=2.6 if method == "generated" else 1.6,
                markersize=6,
                **style,
            )
            if not method.endswith(("_plain", "shuffled")):
                axis.fill_between(
                    [place[k] for k in here],
                    [low for low, _ in ends],
                    [high for _, high in ends],
                    color=style["color"],
                    alpha=0.13,
                    linewidth=0,
                )
        for method, scores in self.fixed.items():
            style = _STYLE[method]
            if math.isfinite(scores.mean):
                axis.axhline(
                    scores.mean,
                    color=style["color"],
                    linestyle=style["linestyle"],
                    linewidth=1.2,
                    label=LABELS[method],
                )
        axis.set_xticks(list(place.values()), [str(k) for k in ks])
        tidy(axis, f"{self.name} ({len(self.names)} tasks)", "demonstrations k", "mean score")
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        return png(figure)


@dataclass(frozen=True)
class FewShot:
    """All splits.

    Attributes:
        splits: Name → result.
        settings: What it was measured with, JSON-serialisable.
        seconds: How long it took.
    """

    splits: dict[str, FewShotSplit]
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `hypergen evaluate --k`."""
        tasks: dict[str, dict[str, dict[str, float]]] = {}
        for split in self.splits.values():
            for i, name in enumerate(split.names):
                rows = {
                    str(k): {m: float(s.per_task[i]) for m, s in split.scores(k).items()}
                    for k in sorted(split.rows)
                }
                tasks.setdefault(
                    name,
                    {k: {m: v for m, v in r.items() if math.isfinite(v)} for k, r in rows.items()},
                )
        return {
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
            "tasks": tasks,
            "settings": self.settings,
            "seconds": self.seconds,
        }

    def to_table(self) -> str:
        """For a terminal."""
        lines: list[str] = []
        for split in self.splits.values():
            lines += [*([""] if lines else []), *split.table()]
            for k in sorted(split.shown):
                if split.shown[k] < split.given[k] - 1e-9:
                    lines.append(
                        f"k = {k}: {split.shown[k]:.1f} of {split.given[k]:.1f} demonstrations fit "
                        "in the prompt"
                    )
        return "\n".join(lines)

    def save(self, folder: str | Path) -> list[Path]:
        """Writes `few_shot.json` and `plots/few_shot_SPLIT.png`; other files there stay."""
        folder = Path(folder)
        plots = folder / "plots"
        plots.mkdir(parents=True, exist_ok=True)
        paths = [write_json(folder / METRICS_FILE, self.to_dict(), nonfinite="null")]
        for name, split in self.splits.items():
            slug = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
            path = plots / f"few_shot_{slug}.png"
            path.write_bytes(split.plot())
            paths.append(path)
        return paths
