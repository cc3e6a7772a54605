"""A self-contained report: one HTML file, the same plots as PNG files, the numbers as JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from hypergen._utils.figures import CSS
from hypergen._utils.io import atomic_folder, dump_json, write_json, write_text
from hypergen.evaluation import markup, plots, taskplot
from hypergen.evaluation.result import Evaluation

REPORT_FILE, METRICS_FILE = "report.html", "metrics.json"


def write_report(
    folder: str | Path, evaluation: Evaluation, extras: Mapping[str, Any] | None = None
) -> Path:
    """Writes `report.html`, `metrics.json` and the plots into a folder.

    The HTML file holds its pictures and loads nothing from anywhere. Files of other names that are
    in the folder stay.

    Args:
        folder: Where to write; made if needed.
        evaluation: What to report.
        extras: Further settings and facts to print (command, text, seconds of each step, …),
            JSON-serialisable; they stand under `extras` in `metrics.json`.

    Returns:
        The path of `report.html`.
    """
    folder = Path(folder)
    pictures = draw(evaluation)
    metrics = {
        **evaluation.to_dict(),
        "details": evaluation.details(),
        "extras": dict(extras or {}),
    }
    html = to_html(evaluation, pictures, extras or {})
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / METRICS_FILE, metrics, nonfinite="null")
    with atomic_folder(folder / "plots", overwrite=True) as temporary:
        for name, (data, _) in pictures.items():
            (temporary / f"{name}.png").write_bytes(data)
    # Last, so that a report that is there is whole.
    return write_text(folder / REPORT_FILE, html)


def draw(evaluation: Evaluation) -> dict[str, tuple[bytes, str]]:
    """File name → (PNG, caption), in the order of the report."""
    pictures = {
        "means": (
            plots.split_means(evaluation),
            "Mean score of each method, with 95% bootstrap intervals over tasks. A generator that "
            "reads its description stands clearly to the right of the unchanged base, the zoo "
            "mean, the multi-task adapter and, above all, of <em>shuffled description</em> (its "
            "own adapters for another task's sentence). The nearer it is to <em>trained on the "
            "task</em>, the less is lost by not training.",
        ),
        "by_task": (
            plots.scores_by_task(evaluation),
            "Every task's score, each method sorted on its own from its best task to its worst. "
            "The thick orange line should run near the dotted black one and bend down late: where "
            "it falls, the generator fails on that share of the tasks.",
        ),
    }
    for name, split in evaluation.splits.items():
        pictures[f"tasks_{_slug(name)}"] = (
            taskplot.tasks(split),
            f"Split {escape(name)}, task by task, the largest gain over the unchanged base first. "
            "The stripe leads from the base (grey cross) to the generated weights (orange dot); "
            "it is grey where they are worse than the base. The bar of the dot is the standard "
            "deviation over the task's descriptions. The empty square is what training on the "
            "task itself reaches.",
        )
    for name, split in evaluation.splits.items():
        if split.weights is not None:
            pictures[f"weights_{_slug(name)}"] = (
                plots.weights_against_oracle(split, split.weights),
                f"Split {escape(name)}: each entry of the generated weights against the same entry "
                "of weights trained on that task; on the orange line they are equal. Networks can "
                "do the same with other numbers, so points off the line need not be errors. The "
                "last panel compares what the weights change as a whole: the orange bars should "
                "lie to the right of the grey ones, which compare with another task's weights.",
            )
    if evaluation.calibration is not None:
        pictures["calibration"] = (
            plots.calibration(evaluation.calibration),
            "Left: the gain that the generator states with each adapter against the gain that it "
            "wins; the orange line should follow the dashed diagonal. Right: mean score when only "
            "the adapters of highest expected gain are used and the base answers for the others; "
            "the orange line should lie above the dashed one and near the dotted one.",
        )
    return pictures


def to_html(
    evaluation: Evaluation, pictures: Mapping[str, tuple[bytes, str]], extras: Mapping[str, Any]
) -> str:
    """The page."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>hypergen evaluation</title><style>{CSS}</style></head><body>",
        "<h1>Generated weights against every baseline</h1>",
        f"<p>{_lead(evaluation)}</p>",
        "<h2>Scores</h2>",
        markup.scores(evaluation.splits),
        "<p>Each cell: mean over tasks, and below it the 95% bootstrap interval. <em>Gap "
        "closed</em> is (generated − base) / (trained on the task − base). A task's generated "
        "score is the mean over its descriptions.</p>",
        *markup.metrics(evaluation.splits),
        "<h2>Where it does not win</h2>",
        *_notes(evaluation),
    ]
    titles = {"means": "Means", "by_task": "Sorted scores", "calibration": "Expected gain"}
    for name, (data, caption) in pictures.items():
        kind, _, rest = name.partition("_")
        title = titles.get(name) or f"{'Tasks' if kind == 'tasks' else 'Weights'}, {rest}"
        encoded = base64.b64encode(data).decode("ascii")
        parts += [
            f"<h2>{escape(title)}</h2>",
            f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{encoded}">',
            f"<figcaption>{caption}</figcaption></figure>",
        ]
    if evaluation.calibration is not None:
        parts.append(f"<p>{_calibration(evaluation)}</p>")
    parts += [
        "<h2>Differences</h2>",
        markup.differences(evaluation.splits),
        "<h2>Settings</h2>",
        f"<pre>{escape(dump_json({**evaluation.settings, **extras}, nonfinite='null'))}</pre>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _lead(evaluation: Evaluation) -> str:
    sentences = []
    for split in evaluation.splits.values():
        said = f"<b>{escape(split.name)}</b>: generated {split.means['generated']:.3f}"
        if "gap_closed" in split.gaps:
            said += f", {100 * split.gaps['gap_closed']:.0f}% of the gap closed"
        if "gap_closed_shuffled" in split.gaps:
            said += f" (shuffled description: {100 * split.gaps['gap_closed_shuffled']:.0f}%)"
        sentences.append(said)
    return (
        "; ".join(sentences)
        + f". Seed {evaluation.settings.get('seed', 0)}, "
        + f"{evaluation.seconds:.1f} s for this evaluation."
    )


def _notes(evaluation: Evaluation) -> list[str]:
    notes = evaluation.notes()
    if not notes:
        return [
            "<p>On every split the generated weights beat every baseline, and the 95% interval "
            "of the paired difference excludes zero.</p>"
        ]
    return [f'<p class="note">{escape(note)}</p>' for note in notes]


def _calibration(evaluation: Evaluation) -> str:
    found = evaluation.calibration
    assert found is not None

    def said(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.2f}"

    return (
        f"Over {len(found.expected)} descriptions of "
        f"{escape(', '.join(evaluation.settings.get('calibrated_on', [])))}: expected calibration "
        f"error {found.error:.3f}, root mean squared error {found.rmse:.3f} (always stating the "
        f"mean gain: {found.rmse_constant:.3f}), correlation {said(found.correlation)}, rank "
        f"correlation {said(found.rank_correlation)}."
    )


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
