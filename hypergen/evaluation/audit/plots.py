"""The figures of an audit, as PNG bytes. Matplotlib is imported when one is drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hypergen._utils.figures import new_figure, png, tidy
from hypergen.evaluation.audit.frontier import AXES, Cloud, comparable, frontier
from hypergen.evaluation.audit.result import Audit

# Okabe and Ito's palette, told apart by the colour-blind.
_SAMPLES, _HELDOUT, _TRAINING, _GREY = "#D55E00", "#0072B2", "#7F7F7F", "#9A9A9A"
_STYLE = {
    "noise": {"color": "#9A9A9A", "marker": "o"},
    "average": {"color": "#009E73", "marker": "s"},
    "interpolation": {"color": "#009E73", "marker": "^"},
    "merge": {"color": "#009E73", "marker": "D"},
    "gaussian": {"color": "#CC79A7", "marker": "v"},
    "nearest": {"color": "#56B4E9", "marker": "P"},
    "autoencoder": {"color": "#E69F00", "marker": "X"},
    "minimiser": {"color": "#000000", "marker": "*"},
}


def accuracy_against_novelty(audit: Audit) -> bytes:
    """One panel for each kind of novelty: every network a point, the baselines' frontier a line."""
    axes_of = [axis for axis in AXES if axis in audit.dominated]
    figure = new_figure(5.6 * len(axes_of), 5.4)
    panels = figure.subplots(1, len(axes_of), squeeze=False)[0]
    ours, theirs, *baselines = audit.clouds
    handles: dict[str, Any] = {}
    for panel, axis in zip(panels, axes_of, strict=True):
        for cloud in comparable(baselines, axis):
            style = _STYLE[cloud.kind.split("_")[0]]
            hollow = cloud.kind.endswith("_canonical")
            label = "noise around a checkpoint" if cloud.kind.startswith("noise") else cloud.label
            handles[label] = _points(
                panel, cloud, axis, **style, hollow=hollow, size=16, alpha=0.45
            )
        line = frontier(baselines, axis)
        if len(line):
            _stairs(panel, line, handles)
        handles[theirs.label] = _points(
            panel, theirs, axis, color=_HELDOUT, marker="o", size=22, alpha=0.7
        )
        handles[ours.label] = _points(
            panel, ours, axis, color=_SAMPLES, marker="o", size=26, alpha=0.8
        )
        share = audit.dominated[axis]
        tidy(
            panel,
            f"{share.samples.value:.0%} of the samples dominated, "
            f"{share.heldout.value:.0%} of real ones",
            AXES[axis],
            audit.quality_name,
        )
        panel.set_xlim(left=-0.03)
        shown = torch.cat([c.quality[torch.isfinite(c.quality)] for c in audit.clouds])
        low = float(torch.quantile(shown.double(), 0.01))
        room = max(1e-6, float(shown.max()) - low)
        panel.set_ylim(low - 0.03 * room, float(shown.max()) + 0.05 * room)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=3 if len(axes_of) > 1 else 2,
        frameon=False,
        fontsize=8,
    )
    return png(figure)


def _points(
    panel: Any,
    cloud: Cloud,
    axis: str,
    *,
    color: str,
    marker: str,
    size: float,
    alpha: float,
    hollow: bool = False,
) -> Any:
    return panel.scatter(
        cloud.novelty[axis],
        cloud.quality,
        s=size,
        marker=marker,
        facecolors="none" if hollow else color,
        edgecolors=color,
        linewidths=0.7,
        alpha=alpha,
    )


def _stairs(panel: Any, line: Tensor, handles: dict[str, Any]) -> None:
    """What is on or below the line is dominated."""
    novelty, quality = line.unbind(1)
    x = torch.cat([novelty.new_zeros(1), novelty, novelty[-1:]])
    y = torch.cat([quality[:1], quality, quality.new_zeros(1) - 1e3])
    # From one point to the next, the better of the two counts: the one to the right.
    (drawn,) = panel.step(x, y, where="pre", color="#444444", linewidth=1.3, zorder=4)
    handles["frontier of the baselines"] = drawn


def distances(audit: Audit) -> bytes:
    """Histograms of the distance to the nearest training network, a panel for each space."""
    spaces = list(audit.spaces.values())
    figure = new_figure(5.6 * len(spaces), 3.5)
    panels = figure.subplots(1, len(spaces), squeeze=False)[0]
    for panel, found in zip(panels, spaces, strict=True):
        every = torch.cat(list(found.novelty.values()))
        top = float(torch.quantile(every, 0.995)) * 1.1 + 1e-9
        edges = torch.linspace(0, top, 41).tolist()
        for name, color, label in (
            ("training", _TRAINING, "training, other runs"),
            ("heldout", _HELDOUT, "held-out"),
            ("samples", _SAMPLES, "samples"),
        ):
            values = found.novelty[name].clamp(max=top)
            panel.hist(
                values.numpy(),
                bins=edges,
                weights=torch.full((len(values),), 1 / len(values)).numpy(),
                histtype="stepfilled" if name == "samples" else "step",
                color=color,
                alpha=0.55 if name == "samples" else 1.0,
                linewidth=1.6,
                label=label,
            )
        panel.axvline(found.copy_threshold, color="#444444", linewidth=1, linestyle=":")
        tidy(panel, f"R = {found.ratio.text()}", AXES[found.space], "share of networks")
    panels[0].legend(frameon=False, fontsize=9)
    return png(figure)


def overlaps(audit: Audit) -> bytes:
    """Overlap of wrong predictions against accuracy, and the means within bins."""
    assert audit.overlap is not None
    figure = new_figure(6.4, 4.2)
    panel = figure.subplots()
    ours, theirs = audit.clouds[0], audit.clouds[1]
    for cloud, name, color in ((theirs, "heldout", _HELDOUT), (ours, "samples", _SAMPLES)):
        values = audit.overlap.values[name]
        panel.scatter(cloud.quality, values, s=14, color=color, alpha=0.4, linewidths=0)
        bins = [b for b in audit.overlap.bins if b[name] > 0]
        centre = [(b["from"] + b["to"]) / 2 for b in bins]
        means = [b[f"overlap_{name}"] for b in bins]
        panel.plot(centre, means, color=color, marker="o", linewidth=1.8, label=cloud.label)
    tidy(
        panel,
        f"excess at equal {audit.quality_name}: {audit.overlap.excess.text('+.3f')}",
        audit.quality_name,
        "largest overlap with a training network",
    )
    panel.legend(frameon=False, fontsize=9)
    return png(figure)
