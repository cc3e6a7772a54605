"""The figures of a zoo's report, as PNG bytes. Matplotlib is imported when one is drawn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from hypergen._utils.figures import new_figure, png, tidy
from hypergen.zoo.looking.records import ArchitectureInfo, Points
from hypergen.zoo.store import Row

if TYPE_CHECKING:
    pass

# Okabe and Ito's palette, told apart by the colour-blind.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_MARKERS = "osD^vPX*"
_NAMED = 16  # tasks that a legend can name: two markers for each colour
_LABELLED = 60  # slots whose names fit on an axis


def value(row: Row, metric: str) -> float:
    """A metric `"split.name"` of a row, NaN where it has none."""
    split, _, name = metric.partition(".")
    found = row.metrics.get(split, {}).get(name)
    return math.nan if found is None else float(found)


def main_metric(info: ArchitectureInfo) -> str:
    """The metric that colours the map: accuracy on held-out samples if there is one, or ""."""
    names = sorted(info.metrics)
    order = [
        *(f"{split}.accuracy" for split in ("test", "val", "train")),
        *(name for name in names if name.endswith("accuracy")),
        *(name for name in names if name.startswith("test.")),
        *names,
    ]
    return next((name for name in order if name in info.metrics), "")


def metric_histograms(info: ArchitectureInfo, shown: int = 12) -> bytes:
    """One panel a metric: its values over the last checkpoints that were compared."""
    points = info.points
    rows = [row for row, last in zip(points.rows, points.last.tolist(), strict=True) if last]
    names = sorted(info.metrics)[:shown]
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure = new_figure(4.0 * columns, 2.9 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes, names, strict=False):
        values = np.array([value(row, name) for row in rows])
        values = values[~np.isnan(values)]
        axis.hist(values, bins=min(40, max(8, len(values) // 8)), color=PALETTE[0])
        if len(values):
            axis.axvline(float(np.median(values)), color=PALETTE[1], linewidth=2)
        axis.locator_params(axis="x", nbins=5)
        tidy(axis, name, "value", "runs")
    return png(figure)


def slot_norms(info: ArchitectureInfo) -> bytes:
    """Mean and spread of the norm of every slot."""
    slots = info.slot_norms
    few = len(slots) <= _LABELLED
    figure = new_figure(8.5, min(0.24 * len(slots), 12) + 1.2)
    axis = figure.subplots()
    mean = np.array([slot["mean"] for slot in slots])
    sd = np.array([slot["sd"] for slot in slots])
    roles = sorted({slot["role"] for slot in slots})
    for number, role in enumerate(roles):
        at = np.array([i for i, slot in enumerate(slots) if slot["role"] == role])
        axis.errorbar(
            mean[at],
            at,
            xerr=sd[at],
            fmt=_MARKERS[number % len(_MARKERS)],
            color=PALETTE[number % len(PALETTE)],
            markersize=5 if few else 2,
            elinewidth=1.4,
            capsize=2 if few else 0,
            label=role,
        )
    if few:
        axis.set_yticks(range(len(slots)), [slot["slot"] for slot in slots])
    axis.set_ylim(len(slots) - 0.5, -0.5)
    axis.set_xlim(left=0)
    tidy(axis, "", "norm of the slot: mean ± sd over runs", "" if few else "slot")
    axis.legend(frameon=False, fontsize=9)
    return png(figure)


def _axes_names(shares: torch.Tensor, of: str) -> tuple[str, str]:
    first, second = (100 * float(share) for share in shares)
    return f"1st component ({first:.0f}% of {of})", f"2nd component ({second:.0f}%)"


def checkpoint_map(info: ArchitectureInfo) -> bytes:
    """The same map twice: coloured by task, and by the main metric."""
    points, metric = info.points, main_metric(info)
    last = points.last.numpy()
    xy = points.xy.numpy()
    figure = new_figure(12.5, 5.2)
    left, right = figure.subplots(1, 2)
    for axis in (left, right):
        axis.scatter(*xy[~last].T, s=5, color="#BBBBBB", linewidths=0)
    tasks = np.array([row.task for row in points.rows])
    names = sorted(set(tasks))
    if len(names) <= _NAMED:
        for number, name in enumerate(names):
            at = last & (tasks == name)
            left.scatter(
                *xy[at].T,
                s=22,
                color=PALETTE[number % len(PALETTE)],
                marker=_MARKERS[number // len(PALETTE)],
                label=name[:32] or "no task",
                alpha=0.8,
                linewidths=0,
            )
        left.legend(frameon=False, fontsize=8, loc="best")
    else:
        numbers = np.searchsorted(names, tasks)
        dots = left.scatter(*xy[last].T, s=22, c=numbers[last], cmap="turbo", linewidths=0)
        figure.colorbar(dots, ax=left, shrink=0.85).set_label("number of the task", fontsize=9)
    x, y = _axes_names(points.shares, "the variance")
    tidy(left, f"by task ({len(names)})", x, y)
    values = np.array([value(row, metric) if metric else row.step for row in points.rows])
    known = last & ~np.isnan(values)
    dots = right.scatter(*xy[known].T, s=22, c=values[known], cmap="viridis", linewidths=0)
    if known.any():
        figure.colorbar(dots, ax=right, shrink=0.85).set_label(metric or "step", fontsize=9)
    tidy(right, f"by {metric or 'step'}", x, y)
    return png(figure)


def distances(info: ArchitectureInfo) -> bytes:
    """Distances to the nearest neighbour, within and between runs, relative to the norm."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    points = info.points
    named = {
        "same run": points.within,
        "another run": points.between,
        "another run, hidden units aligned": points.aligned,
    }
    named = {name: values for name, values in named.items() if len(values)}
    scale = 100 / (info.norm or 1.0)
    everything = torch.cat(list(named.values())) * scale
    positive = everything[everything > 0]
    low = max(float(positive.min()), 1e-4) if len(positive) else 1e-4
    high = max(float(everything.max()), low) * 1.3
    edges = np.geomspace(low / 1.3, high, 50)
    figure = new_figure(8.5, 3.8)
    axis = figure.subplots()
    for number, (name, values) in enumerate(named.items()):
        percent = (values * scale).clamp(min=low).numpy()
        label = f"{name}: median {float(np.median(percent)):.3g}%"
        # The aligned ones as an outline: they often lie on top of the others.
        style = {"histtype": "step", "linewidth": 2} if number == 2 else {"alpha": 0.6}
        axis.hist(percent, bins=edges.tolist(), color=PALETTE[number], label=label, **style)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    tidy(axis, "", "distance to the nearest checkpoint (% of the norm)", "checkpoints")
    axis.legend(frameon=False, fontsize=9)
    return png(figure)


def trajectories(info: ArchitectureInfo) -> bytes:
    """A few runs: their paths, and how their metric rises."""
    points, metric = info.points, main_metric(info)
    figure = new_figure(12.5, 4.8)
    left, right = figure.subplots(1, 2)
    for number, (run, at) in enumerate(points.paths.items()):
        color = PALETTE[number % len(PALETTE)]
        xy = points.path_xy[at].numpy()
        left.plot(*xy.T, color=color, marker=".", linewidth=1.4, label=run[:32])
        left.plot(*xy[-1], color=color, marker="s", markersize=7)
        steps = [points.rows[i].step for i in at]
        values = [value(points.rows[i], metric) if metric else _moved(points, at, i) for i in at]
        right.plot(steps, values, color=color, marker=".", linewidth=1.4)
    x, y = _axes_names(points.path_shares, "their variance")
    tidy(left, "paths; a square marks the last checkpoint", x, y)
    left.legend(frameon=False, fontsize=8)
    tidy(right, metric or "distance from the first checkpoint on the map", "step", "")
    return png(figure)


def _moved(points: Points, path: list[int], i: int) -> float:
    return float((points.path_xy[i] - points.path_xy[path[0]]).norm())
