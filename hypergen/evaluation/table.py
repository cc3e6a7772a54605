"""The numbers of an evaluation for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from hypergen.evaluation.bootstrap import Interval
from hypergen.evaluation.result import LABELS, SplitResult

METRIC_LABELS = {"exact": "exact match", "rank": "label ranking", "rouge_l": "ROUGE-L"}
WIDE = 7  # most methods that are columns


def table(splits: Mapping[str, SplitResult]) -> list[str]:
    """Lines: a row for each split, or, of many methods, a row for each method; in percent."""
    if len(methods_of(splits)) <= WIDE:
        return _by_split(splits)
    lines: list[str] = []
    for split in splits.values():
        lines += [*([""] if lines else []), *_by_method(split)]
    return lines


def methods_of(splits: Mapping[str, SplitResult]) -> list[str]:
    """The methods that any split has, in the order of tables."""
    return [m for m in LABELS if any(m in s.means for s in splits.values())]


def _by_split(splits: Mapping[str, SplitResult]) -> list[str]:
    methods = methods_of(splits)
    rows = [["split", "tasks", *methods, "generated 95% CI", "gap closed 95% CI"]]
    for split in splits.values():
        cells = [split.name, str(len(split.tasks))]
        cells += [percent(split.means[m]) if m in split.means else "-" for m in methods]
        cells.append(span(split.ci["generated"]))
        cells.append(_gap(split, "gap_closed") or "-")
        rows.append(cells)
    return aligned(rows)


def _by_method(split: SplitResult) -> list[str]:
    """A title, a row for each method, and what is closed of the gap."""
    metrics = [m for m in METRIC_LABELS if any(m in found for found in split.metrics.values())]
    rows = [
        ["method", "score", "95% CI", "generated minus it", "95% CI"]
        + [METRIC_LABELS[m] for m in metrics]
    ]
    for method in LABELS:
        if method not in split.means:
            continue
        cells = [LABELS[method], percent(split.means[method]), span(split.ci[method])]
        if method in split.versus:
            difference, interval = split.versus[method]
            cells += [f"{100 * difference:+.1f}", span(interval, "+.1f")]
        else:
            cells += ["", ""]
        measured = split.metrics.get(method, {})
        cells += [percent(measured[m]) if m in measured else "-" for m in metrics]
        rows.append(cells)
    generated = split.scores["generated"]
    said = [f"spread over descriptions {percent(float(generated.spread.nanmean()))}"]
    gaps = {"gap closed": "gap_closed", "with a shuffled description": "gap_closed_shuffled"}
    said += [f"{label} {found}" for label, name in gaps.items() if (found := _gap(split, name))]
    title = f"{split.name}: {len(split.tasks)} tasks, {len(generated.values)} descriptions"
    return [title, *aligned(rows), "; ".join(said)]


def _gap(split: SplitResult, name: str) -> str:
    if name not in split.gaps:
        return ""
    return f"{percent(split.gaps[name])} ({span(split.ci[name])})"


def percent(value: float) -> str:
    """One decimal."""
    return f"{100 * value:.1f}"


def span(interval: Interval, form: str = ".1f") -> str:
    """`low to high`, in percent."""
    low, high = interval
    return f"{100 * low:{form}} to {100 * high:{form}}"


def aligned(rows: list[list[str]]) -> list[str]:
    """Lines with a rule under the first: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return lines
