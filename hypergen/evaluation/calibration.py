"""Does the expected gain say the truth? Reliability, correlation and what abstaining wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergen.evaluation.compare import pearson


@dataclass(frozen=True)
class Calibration:
    """Expected against measured gains.

    Attributes:
        expected: `[P]`, gains that the generator stated.
        measured: `[P]`, gains that its weights won.
        base: `[P]`, scores of the base on the same tasks.
        bins: One dictionary a bin of equal count: `count`, `low`, `high`, `expected`, `measured`.
        error: Expected calibration error: mean over bins of |expected - measured|, by count
            (Naeini et al., AAAI 2015, for probabilities).
        rmse: Root mean squared error.
        rmse_constant: That of always stating the mean measured gain, for comparison.
        correlation: Pearson correlation; None if one side is constant.
        rank_correlation: Spearman correlation; None likewise.
        kept: `[C]`, fractions of conditions whose weights are used, the most promising first.
        score: `[C]`, mean score when the base answers for all others.
        score_ideal: `[C]`, the same if the measured gains themselves chose.
    """

    expected: Tensor
    measured: Tensor
    base: Tensor
    bins: list[dict[str, float]]
    error: float
    rmse: float
    rmse_constant: float
    correlation: float | None
    rank_correlation: float | None
    kept: Tensor
    score: Tensor
    score_ideal: Tensor

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable, without the single conditions."""
        own = vars(self)
        return {name: own[name] for name in own if name not in ("expected", "measured", "base")}


def calibrate(
    expected: Tensor, measured: Tensor, base: Tensor, bins: int = 10, points: int = 101
) -> Calibration:
    """Compares expected with measured gains.

    Args:
        expected: `[P]`.
        measured: `[P]`.
        base: `[P]`, scores of the base.
        bins: Most bins; fewer when there are fewer than 5 conditions a bin.
        points: Points of the abstention curve.

    Raises:
        ValueError: Nothing to compare, or different lengths.
    """
    expected, measured, base = (t.detach().cpu().double() for t in (expected, measured, base))
    if not len(expected) or expected.shape != measured.shape or expected.shape != base.shape:
        raise ValueError("calibrate needs expected, measured and base of one length, at least 1")
    order = expected.argsort(stable=True)
    parts = order.tensor_split(max(1, min(bins, len(order) // 5)))
    rows = [
        {
            "count": len(part),
            "low": float(expected[part].min()),
            "high": float(expected[part].max()),
            "expected": float(expected[part].mean()),
            "measured": float(measured[part].mean()),
        }
        for part in parts
    ]
    error = sum(r["count"] * abs(r["expected"] - r["measured"]) for r in rows) / len(expected)
    number = torch.linspace(0, len(expected), points).round().long()
    return Calibration(
        expected,
        measured,
        base,
        rows,
        error,
        float((expected - measured).square().mean().sqrt()),
        float(measured.std(correction=0)),
        pearson(expected, measured),
        pearson(_ranks(expected), _ranks(measured)),
        number / len(expected),
        _abstaining(expected, measured, base)[number],
        _abstaining(measured, measured, base)[number],
    )


def _abstaining(by: Tensor, gain: Tensor, base: Tensor) -> Tensor:
    """Mean score when the k conditions that come first `by` descending are kept, k = 0, …, P."""
    won = gain[by.argsort(descending=True, stable=True)].cumsum(0) / len(gain)
    return base.mean() + torch.cat([won.new_zeros(1), won])


def _ranks(values: Tensor) -> Tensor:
    """Ranks, ties sharing their mean."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]
