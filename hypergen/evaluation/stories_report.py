"""The report of an evaluation on stories: a page with its picture, the picture, the numbers."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from hypergen._utils.figures import CSS, new_figure, png, tidy
from hypergen._utils.io import atomic_folder, write_json, write_text
from hypergen.evaluation.markup import table
from hypergen.evaluation.stories_result import METHODS, PERPLEXITIES, StoryEvaluation

# Okabe and Ito's palette, told apart by the colour-blind; hatches tell the bars apart in grey.
_STYLE = {
    "none": ("#7F7F7F", ""),
    "in_prompt": ("#0072B2", "//"),
    "adapter": ("#D55E00", ""),
    "shuffled": ("#56B4E9", ".."),
}
_SHORT = {"none": "none", "in_prompt": "prompt", "adapter": "adapter", "shuffled": "another's"}


def draw_stories(found: Mapping[str, Any]) -> bytes:
    """Bars with intervals: accuracy, and both perplexities.

    Args:
        found: Of `StoryEvaluation.to_dict`.
    """
    panels = [
        ("Questions answered right", "accuracy (%)", found["accuracy"]["mean"], 100.0),
        ("Second half of the story", "perplexity", found["perplexity"]["continuation"], 1.0),
        ("Unrelated plain text", "perplexity", found["perplexity"]["plain"], 1.0),
    ]
    figure = new_figure(12.0, 4.0)
    axes = figure.subplots(1, len(panels))
    for axis, (title, unit, cells, factor) in zip(axes, panels, strict=True):
        methods = [method for method in METHODS if method in cells]
        for place, method in enumerate(methods):
            value, (low, high) = factor * cells[method]["value"], cells[method]["ci95"]
            color, hatch = _STYLE[method]
            axis.bar(place, value, color=color, hatch=hatch, edgecolor="white", width=0.7)
            ends = [[max(0.0, value - factor * low)], [max(0.0, factor * high - value)]]
            axis.errorbar(place, value, yerr=ends, color="black", capsize=4, linewidth=1.4)
            axis.annotate(
                f"{value:.1f}",
                (place, max(value, factor * high)),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=10,
                fontweight="bold" if method == "adapter" else "normal",
            )
        axis.set_xticks(range(len(methods)), [_SHORT[method] for method in methods])
        tidy(axis, title, "", unit)
        axis.set_ylim(0, 1.12 * axis.get_ylim()[1])
    return png(figure)


def write_story_report(
    folder: str | Path, evaluation: StoryEvaluation, extras: Mapping[str, Any] | None = None
) -> Path:
    """Writes `report.html`, `metrics.json` and `plots/stories.png` into a folder.

    Args:
        folder: Where to write; made if needed.
        evaluation: What to report.
        extras: Further facts to print, JSON-serialisable.

    Returns:
        The path of `report.html`.
    """
    folder = Path(folder)
    found = evaluation.to_dict()
    picture = draw_stories(found)
    html = _html(evaluation, found, picture, dict(extras or {}))
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {**found, "per_story": evaluation.per_story(), "extras": dict(extras or {})}
    write_json(folder / "metrics.json", metrics, nonfinite="null")
    with atomic_folder(folder / "plots", overwrite=True) as temporary:
        (temporary / "stories.png").write_bytes(picture)
    # Last, so that a report that is there is whole.
    return write_text(folder / "report.html", html)


def _html(
    evaluation: StoryEvaluation, found: Mapping[str, Any], picture: bytes, extras: dict[str, Any]
) -> str:
    accuracy, perplexity = found["accuracy"], found["perplexity"]
    rows = [
        [f"<td>{escape(label)}</td>"]
        + [_cell(accuracy[name].get(method), 100) for name in ("mean", "sum")]
        + [_cell(perplexity[name].get(method), 1) for name in PERPLEXITIES]
        for method, label in METHODS.items()
        if method in accuracy["mean"]
    ]
    share = [_cell(accuracy[name]["share_of_prompt_gain"], 100) for name in ("mean", "sum")]
    rows.append(["<td>share of the prompt’s gain (%)</td>", *share, "<td>–</td>", "<td>–</td>"])
    heads = ["", "accuracy (%)", "accuracy, summed (%)", "perplexity, second half"]
    heads.append("perplexity, plain text")
    notes = evaluation.notes() or [
        "The generated adapters clearly beat no story and another story's adapter, and do not harm "
        "plain text."
    ]
    facts = [
        [f"<td>{escape(str(k))}</td>", f"<td>{escape(str(v))}</td>"]
        for k, v in {**found["settings"], **extras, "seconds": round(found["seconds"])}.items()
    ]
    encoded = base64.b64encode(picture).decode("ascii")
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>hypergen on stories</title><style>{CSS}</style></head><body>",
            "<h1>Stories as adapters</h1>",
            f"<p>{found['stories']} stories, {found['questions']} questions. An option is chosen "
            "by its log-likelihood behind the question, per token or summed. The prompt's gain is "
            "what the story in the prompt wins over no story; its share is what the generated "
            "adapter, which does without the story, has of that. Below each number its 95% "
            "bootstrap interval over stories.</p>",
            table(heads, rows),
            *(f'<p class="note">{escape(note)}</p>' for note in notes),
            f'<figure><img alt="Bars with intervals" src="data:image/png;base64,{encoded}">',
            "<figcaption>Left: the adapter's bar (orange) should come close to the prompt's, and "
            "stand clearly above <em>none</em> and <em>another's</em>. Middle: lower is better; "
            "the weights were made of the first half. Right: the adapter should not stand above "
            "<em>none</em>.</figcaption></figure>",
            f'<h2>Settings</h2><div class="facts">{table(["", ""], facts)}</div></body></html>',
        ]
    )


def _cell(cell: Mapping[str, Any] | None, factor: float) -> str:
    if cell is None or cell["value"] != cell["value"]:
        return "<td>–</td>"
    low, high = cell["ci95"]
    digits = 1 if factor > 1 else 2
    value, low, high = (f"{factor * x:.{digits}f}" for x in (cell["value"], low, high))
    return f"<td>{value}<small>{low} to {high}</small></td>"
