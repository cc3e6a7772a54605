"""The tables of a report, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from hypergen.evaluation.bootstrap import Interval
from hypergen.evaluation.result import LABELS, SplitResult
from hypergen.evaluation.table import METRIC_LABELS, WIDE, methods_of

Splits = Mapping[str, SplitResult]
_GAPS = {"gap_closed": "gap closed", "gap_closed_shuffled": "gap closed, shuffled"}


def scores(splits: Splits) -> str:
    """Means with intervals and what is closed of the gap: a row for each split.

    Of many methods there is a column for each split and a row for each method.
    """
    methods = methods_of(splits)
    gaps = [g for g in _GAPS if any(g in s.gaps for s in splits.values())]
    heads = ["tasks", *(LABELS[m] for m in methods), *(_GAPS[g] for g in gaps)]
    rows = [
        [f"<td>{len(split.tasks)}</td>"]
        + [_own(m, _cell(split.means.get(m), split.ci.get(m))) for m in methods]
        + [_cell(split.gaps.get(g), split.ci.get(g), percent=True) for g in gaps]
        for split in splits.values()
    ]
    return _either_way(splits, heads, rows, len(methods))


def differences(splits: Splits) -> str:
    """Paired differences and the spread over descriptions, laid out as `scores`."""
    methods = [m for m in LABELS if any(m in s.versus for s in splits.values())]
    heads = [*(f"minus {LABELS[m]}" for m in methods), "spread"]
    rows = [
        [_cell(*split.versus.get(m, (None, None))) for m in methods]
        + [f"<td>{float(split.scores['generated'].spread.nanmean()):.3f}</td>"]
        for split in splits.values()
    ]
    return (
        "<p>Generated minus each method over the same tasks, with the 95% interval of the paired "
        "difference; and the mean spread (standard deviation) of a task's score over its "
        f"descriptions.</p>{_either_way(splits, heads, rows, len(methods))}"
    )


def metrics(splits: Splits) -> list[str]:
    """What is measured beside the score, a table for each split that has it."""
    parts = []
    for split in splits.values():
        names = [m for m in METRIC_LABELS if any(m in v for v in split.metrics.values())]
        if not names:
            continue
        rows = [
            [_own(method, f"<td>{escape(LABELS[method])}</td>")]
            + [_number(split.metrics[method].get(name)) for name in names]
            for method in LABELS
            if method in split.metrics
        ]
        parts += [
            f"<h3>All metrics, {escape(split.name)}</h3>",
            table(["method", *(METRIC_LABELS[name] for name in names)], rows),
        ]
    if parts:
        parts.append(
            "<p>Means over tasks. Exact match and ROUGE-L (F1 of the longest common subsequence of "
            "words) are of the same greedy answers, label ranking is the share of inputs whose "
            "likeliest choice is right, over the tasks that have choices.</p>"
        )
    return parts


def table(heads: Iterable[str], rows: Iterable[list[str]]) -> str:
    """A table of cells that are marked up already."""
    head = "".join(f"<th>{escape(h)}</th>" for h in heads)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _either_way(splits: Splits, heads: list[str], rows: list[list[str]], many: int) -> str:
    """Rows, without the name of their split, as rows or, of many methods, as columns."""
    if many <= WIDE:
        names = [[f"<td>{escape(name)}</td>", *row] for name, row in zip(splits, rows, strict=True)]
        return table(["split", *heads], names)
    turned = [
        [f"<td>{escape(head)}</td>", *cells] for head, *cells in zip(heads, *rows, strict=True)
    ]
    return table(["", *splits], turned)


def _own(method: str, cell: str) -> str:
    return cell.replace("<td>", '<td class="own">') if method == "generated" else cell


def _number(value: float | None) -> str:
    return "<td>–</td>" if value is None else f"<td>{value:.3f}</td>"


def _cell(value: float | None, interval: Interval | None, percent: bool = False) -> str:
    if value is None or interval is None:
        return "<td>–</td>"
    low, high = interval
    if percent:
        return f"<td>{100 * value:.1f}%<small>{100 * low:.1f} to {100 * high:.1f}</small></td>"
    return f"<td>{value:.3f}<small>{low:.3f} to {high:.3f}</small></td>"
