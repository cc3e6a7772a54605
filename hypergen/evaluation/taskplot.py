"""The picture of single tasks: where each method stands on each of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.figures import new_figure, png, tidy
from hypergen.evaluation.plots import STYLE
from hypergen.evaluation.result import LABELS, SplitResult

MOST = 60  # rows of a picture
SHOWN = ("base", "incontext", "multitask", "generated", "oracle")
_LONGEST = 34  # characters of a name


def tasks(split: SplitResult) -> bytes:
    """A row for each task, sorted by what the generated weights win over the base.

    Of many tasks, those with the largest and with the smallest gains.
    """
    order = _order(split.gain_per_task)
    names = [_short(split.names[i]) for i in order.tolist()]
    height = torch.arange(len(order))
    figure = new_figure(9.0, 1.5 + 0.26 * len(order))
    axis = figure.subplots()
    handles: dict[str, Any] = {}
    values = {m: split.scores[m].per_task[order] for m in SHOWN if m in split.scores}
    base, generated = values["base"], values["generated"]
    for y, start, stop in zip(height.tolist(), base.tolist(), generated.tolist(), strict=True):
        colour = "#F3C5A8" if stop >= start else "#C9C9C9"
        axis.plot([start, stop], [y, y], color=colour, linewidth=5, zorder=1, solid_capstyle="butt")
    spread = split.scores["generated"].spread[order].nan_to_num(0.0)
    for method, value in values.items():
        style, main = STYLE[method], method == "generated"
        # A hand's breadth apart, so that equal scores do not hide one another.
        place = height + {"incontext": -0.24, "multitask": 0.24}.get(method, 0.0)
        kept = torch.isfinite(value)
        handles[method] = axis.errorbar(
            value[kept],
            place[kept],
            xerr=spread[kept] if main else None,
            fmt=style["marker"],
            color=style["color"],
            markersize=7.5 if main else 5.5,
            markerfacecolor="none" if method == "oracle" else style["color"],
            elinewidth=1.6,
            capsize=2.5,
            zorder={"generated": 5, "oracle": 6}.get(method, 3),
        )
    axis.set_yticks(height.tolist(), names)
    axis.set_ylim(len(order) - 0.4, -0.6)
    count = len(split.tasks)
    part = "" if len(order) == count else f": the {MOST // 2} best and the {MOST // 2} worst gains"
    tidy(axis, f"{split.name} ({count} tasks{part})", "score")
    low, high = _ends(list(values.values()), spread, generated)
    axis.set_xlim(low, high)
    if len(order) < count:
        axis.axhline(MOST // 2 - 0.5, color="#7F7F7F", linewidth=0.8, linestyle="--")
    figure.legend(
        list(handles.values()),
        [LABELS[m] + (" (bar: spread)" if m == "generated" else "") for m in handles],
        loc="outside upper center",
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    return png(figure)


def _order(gain: Tensor) -> Tensor:
    """`[≤ MOST]` positions, the largest gain first; at the end those without one."""
    order = gain.nan_to_num(-math.inf).argsort(descending=True, stable=True)
    if len(order) <= MOST:
        return order
    return torch.cat([order[: MOST // 2], order[-(MOST // 2) :]])


def _ends(values: list[Tensor], spread: Tensor, generated: Tensor) -> tuple[float, float]:
    """What the axis shows: all scores and the spread."""
    every = torch.cat([*values, generated - spread, generated + spread])
    every = every[torch.isfinite(every)]
    low, high = float(every.min()), float(every.max())
    room = max(0.03, 0.04 * (high - low))
    return max(-0.02, low - room), min(1.02, high + room)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
