"""A self-contained report: one HTML file, the same figures as PNG files, the numbers as JSON."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

from hypergen._utils.figures import CSS
from hypergen._utils.io import atomic_folder, dump_json, write_json, write_text
from hypergen.zoo.looking import plots, text
from hypergen.zoo.looking.records import ArchitectureInfo, Points, ZooInfo
from hypergen.zoo.looking.verdict import count, percent

REPORT_FILE, INFO_FILE, PLOTS = "report.html", "info.json", "plots"

_TITLES = {
    "metrics": "Metrics",
    "norms": "Norms by slot",
    "map": "Map",
    "distances": "Distances",
    "trajectories": "Trajectories",
}


def write_report(folder: str | Path, info: ZooInfo) -> Path:
    """Writes `report.html`, `info.json` and the figures into a folder.

    The HTML file holds its pictures and loads nothing from anywhere. Files of other names that are
    in the folder stay.

    Args:
        folder: Where to write; made if needed.
        info: What `describe` returned.

    Returns:
        The path of `report.html`.
    """
    folder = Path(folder)
    pictures = {key: draw(found) for key, found in info.architectures.items()}
    points = {key: _coordinates(found.points) for key, found in info.architectures.items()}
    html = to_html(info, pictures)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / INFO_FILE, {**info.to_dict(), "points": points}, nonfinite="null")
    with atomic_folder(folder / PLOTS, overwrite=True) as temporary:
        for key, drawn in pictures.items():
            for name, (data, _) in drawn.items():
                (temporary / f"{key}-{name}.png").write_bytes(data)
    # Last, so that a report that is there is whole.
    return write_text(folder / REPORT_FILE, html)


def draw(found: ArchitectureInfo) -> dict[str, tuple[bytes, str]]:
    """Name of a figure → (PNG, caption), in the order of the report; those that have data."""
    pictures = {}
    if found.metrics:
        pictures["metrics"] = (
            plots.metric_histograms(found),
            "The last checkpoint of each run; the orange line is the median. A zoo that is to "
            "teach what good weights are should hold few runs that failed.",
        )
    pictures["norms"] = (
        plots.slot_norms(found),
        "The last checkpoint of each run. Norms that differ much from slot to slot call for a "
        "normaliser before anything is learnt from these weights.",
    )
    if found.compared > 1:
        pictures["map"] = (
            plots.checkpoint_map(found),
            "Principal components of the last checkpoints; grey dots are earlier checkpoints of "
            "the same runs. Independent runs of one task lie far apart unless hidden units are "
            "brought into one order; when tasks form clusters, weights tell tasks apart.",
        )
        pictures["distances"] = (
            plots.distances(found),
            "From each checkpoint to the nearest other one of its run, and from the last one of "
            "each run to the nearest of another run. Where only the first is small, checkpoints of "
            "one run must not be split between training and test.",
        )
    if found.points.paths:
        pictures["trajectories"] = (
            plots.trajectories(found),
            "A few runs: principal components of their checkpoints, and their metric by step.",
        )
    return pictures


def to_html(info: ZooInfo, pictures: dict[str, dict[str, tuple[bytes, str]]]) -> str:
    """The page."""
    name = escape(info.name)
    out = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}</title><style>{CSS}</style></head><body>",
        f"<h1>{name}</h1>",
        f'<p class="note">{escape(info.verdict)}</p>',
        _facts(info),
    ]
    if info.metrics:
        out += ["<h2>Metrics of the last checkpoint of each run</h2>", _table(info.metrics)]
    for key, found in info.architectures.items():
        out += _section(key, found, info, pictures[key])
    provenance = escape(dump_json(info.provenance, nonfinite="null"))
    out += ["<h2>Provenance</h2>", f"<pre>{provenance}</pre>", "</body></html>"]
    return "\n".join(out) + "\n"


def _facts(info: ZooInfo) -> str:
    quarantined = "; ".join(f"{n:,}: {why}" for why, n in info.quarantined.items())
    found = info.duplicates
    facts = {
        "licence": info.licence or "not stated",
        "parts": text.parts(info),
        "checkpoints": f"{info.checkpoints:,} of {count(info.runs, 'run')}",
        "architectures": ", ".join(info.architectures) or "none",
        "steps": f"{info.steps['min']:,} to {info.steps['max']:,}" if info.steps else "none",
        "tasks": text.tasks(info),
        **{k: text.hyperparameter(v) for k, v in info.hyperparameters.items()},
        "quarantined": quarantined or "none",
        "exact duplicates": f"{found['count']:,} ({found['of_other_runs']:,} across runs)",
    }
    rows = (f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in facts.items())
    return f'<table class="facts"><tbody>{"".join(rows)}</tbody></table>'


def _section(
    key: str, found: ArchitectureInfo, info: ZooInfo, pictures: dict[str, tuple[bytes, str]]
) -> list[str]:
    what = "LoRA updates ΔW" if found.compares == "updates" else "weights"
    out = [
        f"<h2>Architecture {escape(key)}</h2>",
        f"<p>{found.numel:,} numbers in {count(found.slots, 'slot')} ({found.dtype}), "
        f"{count(found.checkpoints, 'checkpoint')} of {count(found.runs, 'run')}. Norms, "
        f"distances and maps: {what} of {escape(text.sampled(found, info))}. Norm "
        f"{found.norm:.4g}.</p>",
    ]
    if text.distances(found):
        out.append(_table(text.distances(found)))
    if found.ratio is not None:
        out.append(f"<p>Between runs over within a run: {found.ratio:.3g}.</p>")
    if found.same_task:
        share, chance = (percent(found.same_task[k]) for k in ("share", "chance"))
        out.append(
            f"<p>The nearest run has the same task for {share} of the runs (by chance "
            f"{chance}).</p>"
        )
    for name, (data, caption) in pictures.items():
        encoded = base64.b64encode(data).decode("ascii")
        title = f"{_TITLES[name]} of {escape(key)}"
        out += [
            f"<h3>{_TITLES[name]}</h3>",
            f'<figure><img alt="{title}" src="data:image/png;base64,{encoded}">',
            f"<figcaption>{caption}</figcaption></figure>",
        ]
    config = escape(dump_json(found.config, nonfinite="null"))
    return [*out, f"<details><summary>Configuration</summary><pre>{config}</pre></details>"]


def _table(rows: dict[str, dict[str, float]]) -> str:
    columns = ["count", "mean", "sd", "min", "q05", "q25", "median", "q75", "q95", "max"]
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{values[column]:.4g}</td>" for column in columns)
        + "</tr>"
        for name, values in rows.items()
    )
    return (
        f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _coordinates(points: Points) -> dict[str, Any]:
    """What the figures show, as numbers."""
    return {
        "run": [row.run for row in points.rows],
        "step": [row.step for row in points.rows],
        "last": points.last,
        "xy": points.xy,
        "shares": points.shares,
        "within": points.within,
        "between": points.between,
        "aligned": points.aligned,
    }
