"""The figures of a report, as PNG bytes. Matplotlib is imported when one is drawn."""

from __future__ import annotations

import math
from typing import Any

import torch

from hypergen._utils.figures import new_figure, png, tidy
from hypergen.evaluation.calibration import Calibration
from hypergen.evaluation.compare import WeightComparison
from hypergen.evaluation.result import LABELS, Evaluation, SplitResult

# Okabe and Ito's palette, told apart by the colour-blind; dashes tell the lines apart in grey.
STYLE: dict[str, dict[str, Any]] = {
    "oracle": {"color": "#000000", "linestyle": (0, (1, 1)), "marker": "s"},
    "generated": {"color": "#D55E00", "linestyle": "-", "marker": "o"},
    "nearest": {"color": "#0072B2", "linestyle": (0, (5, 1.5)), "marker": "^"},
    "multitask": {"color": "#009E73", "linestyle": (0, (3, 1, 1, 1)), "marker": "D"},
    "mean": {"color": "#CC79A7", "linestyle": (0, (6, 1, 1, 1)), "marker": "v"},
    "shuffled": {"color": "#56B4E9", "linestyle": (0, (2, 1.2)), "marker": "P"},
    "base": {"color": "#7F7F7F", "linestyle": "-", "marker": "X"},
    "incontext": {"color": "#E69F00", "linestyle": (0, (4, 1, 1, 1, 1, 1)), "marker": "<"},
    # The same without a description: pale, thin.
    "generated_plain": {"color": "#E8A87C", "linestyle": (0, (1, 2)), "marker": "o"},
    "multitask_plain": {"color": "#7FCFB5", "linestyle": (0, (1, 2)), "marker": "D"},
    "base_plain": {"color": "#BDBDBD", "linestyle": (0, (1, 2)), "marker": "X"},
}
_ACCENT, _BLUE, _GREY = "#D55E00", "#0072B2", "#7F7F7F"


def _grid(count: int, columns: int = 2, width: float = 5.2, height: float = 3.6) -> Any:
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = new_figure(width * columns, height * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def _methods(split: SplitResult) -> list[str]:
    return [m for m in STYLE if m in split.scores]


def scores_by_task(evaluation: Evaluation) -> bytes:
    """One panel a split: each method's scores over its tasks, sorted from best to worst.

    Without those that are shown no description: they are beside the others in `split_means`.
    """
    figure, axes = _grid(len(evaluation.splits), width=8.4 if len(evaluation.splits) == 1 else 5.2)
    handles: dict[str, Any] = {}
    low = 1.0
    for axis, split in zip(axes, evaluation.splits.values(), strict=True):
        for method in reversed([m for m in _methods(split) if not m.endswith("_plain")]):
            values = split.scores[method].per_task
            values = values[torch.isfinite(values)].sort(descending=True).values
            low = min(low, float(values[-1]))
            share = (torch.arange(len(values)) + 0.5) / len(values) * 100
            main = method == "generated"
            style = {k: v for k, v in STYLE[method].items() if k != "marker"}
            (line,) = axis.plot(
                share,
                values,
                **style,
                linewidth=3.2 if main else 1.6,
                # The oracle's dots stay visible where the generated line reaches them.
                zorder={"oracle": 6, "generated": 5}.get(method, 3),
                marker=STYLE[method]["marker"] if len(values) < 12 else None,
                markersize=5,
            )
            handles[method] = line
        tidy(axis, f"{split.name} ({len(split.tasks)} tasks)", "tasks, best first (%)", "score")
        axis.set_xlim(0, 100)
    for axis in axes:
        axis.set_ylim(max(0.0, low - 0.03), 1.02)
    order = [m for m in STYLE if m in handles]
    figure.legend(
        [handles[m] for m in order],
        [LABELS[m] for m in order],
        loc="outside lower center",
        ncols=3 if "incontext" in order else 4,
        frameon=False,
        fontsize=9,
    )
    return png(figure)


def split_means(evaluation: Evaluation) -> bytes:
    """One panel a split: the mean score of each method with its 95% interval."""
    figure, axes = _grid(len(evaluation.splits), width=5.2, height=2.7)
    for number, (axis, split) in enumerate(zip(axes, evaluation.splits.values(), strict=True)):
        methods = _methods(split)
        for place, method in enumerate(methods):
            mean, (low, high) = split.means[method], split.ci[method]
            main = method == "generated"
            axis.errorbar(
                mean,
                place,
                xerr=[[max(0.0, mean - low)], [max(0.0, high - mean)]],
                fmt=STYLE[method]["marker"],
                color=STYLE[method]["color"],
                markersize=9 if main else 6,
                elinewidth=2.6 if main else 1.4,
                capsize=3,
            )
            axis.annotate(
                f"{mean:.3f}",
                (max(mean, high), place),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                fontweight="bold" if main else "normal",
            )
        labels = [LABELS[m] for m in methods] if number % 2 == 0 else [""] * len(methods)
        axis.set_yticks(range(len(methods)), labels)
        axis.set_ylim(len(methods) - 0.5, -0.5)
        tidy(axis, f"{split.name} ({len(split.tasks)} tasks)", "mean score")
        if number % 2 == 0 and "generated" in methods:
            axis.get_yticklabels()[methods.index("generated")].set_fontweight("bold")
    values = [
        v for s in evaluation.splits.values() for ci in (s.ci[m] for m in s.means) for v in ci
    ]
    for axis in axes:
        axis.set_xlim(max(0.0, min(values) - 0.04), max(values) + 0.1)
    return png(figure)


def weights_against_oracle(split: SplitResult, comparison: WeightComparison) -> bytes:
    """Generated against oracle entries for each role, and similarities of updates by task."""
    roles = list(comparison.entries)
    figure, axes = _grid(len(roles) + 1, columns=3, width=4.3, height=3.6)
    for axis, role in zip(axes, roles, strict=False):
        x, y = comparison.entries[role][1], comparison.entries[role][0]
        limit = 1.05 * float(torch.cat([x, y]).abs().quantile(0.999)) or 1.0
        inside = (x.abs() <= limit) & (y.abs() <= limit)
        cells = axis.hexbin(
            x[inside].numpy(),
            y[inside].numpy(),
            gridsize=45,
            bins="log",
            mincnt=1,
            cmap="viridis",
            extent=(-limit, limit, -limit, limit),
        )
        figure.colorbar(cells, ax=axis, shrink=0.85).set_label("entries", fontsize=9)
        axis.plot([-limit, limit], [-limit, limit], color=_ACCENT, linewidth=1.5)
        correlation = comparison.correlation[role]
        said = "" if correlation is None else f", r = {correlation:.2f}"
        tidy(axis, f"{role}{said}", "trained on the task", "generated")
        axis.set_xlim(-limit, limit)
        axis.set_ylim(-limit, limit)
    axis = axes[len(roles)]
    cosines = torch.cat([comparison.cosine, comparison.cosine_other])
    cosines = cosines[torch.isfinite(cosines)]
    # At least from -0.1 to 0.1, so that zero is in sight and tiny differences do not look large.
    low, high = (float(c) for c in (cosines.min(), cosines.max())) if len(cosines) else (0.0, 0.0)
    edges = torch.linspace(min(low, -0.1), max(high, 0.1), 31).tolist()
    for values, color, label, hatch in (
        (comparison.cosine_other, _GREY, "another task's", "//"),
        (comparison.cosine, _ACCENT, "its own task's", None),
    ):
        values = values[torch.isfinite(values)]
        if len(values):
            axis.hist(
                values.numpy(),
                bins=edges,
                color=color,
                alpha=0.65,
                label=f"{label}: mean {float(values.mean()):.2f}",
                hatch=hatch,
                edgecolor="white",
            )
    tidy(axis, f"similarity of {comparison.what}", "cosine to trained weights", "tasks")
    axis.legend(frameon=False, fontsize=9, loc="upper left")
    axis.set_ylim(0, axis.get_ylim()[1] * 1.3)
    figure.suptitle(
        f"{split.name} ({len(comparison.cosine)} tasks)", fontsize=12, x=0.01, ha="left"
    )
    return png(figure)


def calibration(found: Calibration) -> bytes:
    """Expected against measured gains, and the score when the least promising are left out."""
    figure, (left, right) = _grid(2, width=5.2, height=4.2)
    low, high = float(found.expected.min()) - 0.03, float(found.expected.max()) + 0.03
    bottom, top = float(found.measured.min()) - 0.03, float(found.measured.max()) + 0.03
    ends = [min(low, bottom), max(high, top)]
    left.plot(ends, ends, color="black", linewidth=1, linestyle="--", label="perfect")
    left.axhline(0, color=_GREY, linewidth=0.8)
    left.scatter(
        found.expected,
        found.measured,
        s=9,
        alpha=0.35,
        color=_BLUE,
        linewidths=0,
        label="one description",
    )
    left.plot(
        [b["expected"] for b in found.bins],
        [b["measured"] for b in found.bins],
        color=_ACCENT,
        marker="o",
        linewidth=2.2,
        label="bins of equal count",
    )
    tidy(left, "Does the expected gain come true?", "expected gain", "measured gain")
    left.set_xlim(low, high)
    left.set_ylim(bottom, top + 0.15 * (top - bottom))
    left.legend(framealpha=0.9, edgecolor="none", fontsize=9, loc="upper left", ncols=3)
    kept = 100 * found.kept
    right.plot(
        kept, found.score_ideal, color="black", linestyle=(0, (1, 1)), label="perfect foresight"
    )
    right.plot(kept, found.score, color=_ACCENT, linewidth=2.8, label="by expected gain")
    ends = [float(found.score[0]), float(found.score[-1])]
    right.plot([0, 100], ends, color=_GREY, linestyle="--", label="at random")
    tidy(right, "What abstaining costs or wins", "generated adapters used (%)", "mean score")
    right.set_xlim(0, 100)
    right.legend(frameon=False, fontsize=9, loc="lower right")
    return png(figure)
