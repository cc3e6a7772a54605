"""A self-contained report of an audit: one HTML file, its plots as PNG files, numbers as JSON."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from hypergen._utils.figures import CSS
from hypergen._utils.io import atomic_folder, dump_json, write_json, write_text
from hypergen.evaluation.audit import plots
from hypergen.evaluation.audit.result import Audit

REPORT_FILE, NUMBERS_FILE = "report.html", "audit.json"


def write_report(folder: str | Path, audit: Audit) -> Path:
    """Writes `report.html`, `audit.json` and `plots/` into a folder; other files stay.

    Returns:
        The path of `report.html`.
    """
    folder = Path(folder)
    pictures = draw(audit)
    html = to_html(audit, pictures)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NUMBERS_FILE, audit.to_dict(), nonfinite="null")
    with atomic_folder(folder / "plots", overwrite=True) as temporary:
        for name, (data, _, _) in pictures.items():
            (temporary / f"{name}.png").write_bytes(data)
    # Last, so that a report that is there is whole.
    return write_text(folder / REPORT_FILE, html)


def draw(audit: Audit) -> dict[str, tuple[bytes, str, str]]:
    """File name → (PNG, title, caption), in the order of the report."""
    pictures = {}
    if audit.clouds:
        pictures["accuracy_against_novelty"] = (
            plots.accuracy_against_novelty(audit),
            "Accuracy against novelty",
            "Each point is a network. What lies below the line is matched or beaten in both by a "
            "network that needs no generator. Samples (orange) should lie above it, near the real "
            "held-out networks (blue). Where networks are for tasks, the shares above the panels "
            "compare networks for the same task alone, and the line is a guide.",
        )
    pictures["distances"] = (
        plots.distances(audit),
        "Distances",
        "Distance to the nearest training network, in units of the median distance between "
        "training runs. Samples that are new lie where the held-out networks do. Left of the "
        "dotted line lie 5% of the held-out networks.",
    )
    if audit.overlap is not None:
        pictures["overlaps"] = (
            plots.overlaps(audit),
            "Mistakes",
            "Share of wrong predictions in common with the most similar training network. Better "
            "networks overlap more, so that only equal accuracy can be compared: the orange line "
            "should run along the blue one.",
        )
    return pictures


def to_html(audit: Audit, pictures: dict[str, tuple[bytes, str, str]]) -> str:
    """The page."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>hypergen audit</title><style>{CSS}</style></head><body>",
        "<h1>Are the sampled weights new?</h1>",
        f'<p class="note"><b>{escape(audit.verdict.kind)}</b>: '
        f"{escape(audit.verdict.sentence)}.</p>",
        *(f"<p>Note: {escape(text)}.</p>" for text in audit.warnings()),
    ]
    for data, title, caption in pictures.values():
        encoded = base64.b64encode(data).decode("ascii")
        parts += [
            f"<h2>{escape(title)}</h2>",
            f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{encoded}">',
            f"<figcaption>{escape(caption)}</figcaption></figure>",
        ]
    flags = ", ".join(name for name, there in audit.verdict.flags.items() if there) or "none"
    parts += [
        "<h2>Numbers</h2>",
        f'<div class="wide"><pre>{escape(audit.to_table())}</pre></div>',
        f"<p>Warning signs: {escape(flags)}.</p>",
        "<h2>Settings</h2>",
        f"<pre>{escape(dump_json(audit.settings, nonfinite='null'))}</pre>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"
