"""Intervals by resampling runs, and a permutation test between two sets of runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergen._utils.seeding import generator as seeded


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% bootstrap interval; NaN where it has no meaning.

    Attributes:
        value: The number.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | list[float]]:
        """`{"value": …, "ci95": [low, high]}`."""
        return {"value": self.value, "ci95": [self.low, self.high]}

    def text(self, form: str = ".2f") -> str:
        """`value (low to high)`, or `-`."""
        if math.isnan(self.value):
            return "-"
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


NOTHING = Estimate(math.nan, math.nan, math.nan)


class Resampler:
    """Bootstrap over groups: all members of a group are drawn together.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; percentile intervals. A resample
    is a weight for each member, so that statistics of all resamples are computed at once.

    Args:
        seed: Seed of the draws.
        resamples: Number of resamples R.
        level: Coverage of the intervals.
    """

    def __init__(self, seed: int = 0, resamples: int = 1000, level: float = 0.95) -> None:
        self.seed, self.resamples, self.level = seed, resamples, level

    def weights(self, groups: Tensor, name: str) -> Tensor:
        """How often each member is drawn, `[R, n]`.

        Args:
            groups: `[n]`, the group of each member, any integers.
            name: What is drawn; sets of another name are drawn independently.
        """
        number = groups.unique(return_inverse=True)[1]
        count = int(number.max()) + 1
        draws = torch.randint(
            count, (self.resamples, count), generator=seeded("audit", self.seed, name)
        )
        times = torch.zeros(self.resamples, count)
        times.scatter_add_(1, draws, torch.ones_like(draws, dtype=times.dtype))
        return times[:, number]

    def estimate(self, value: Tensor | float, draws: Tensor) -> Estimate:
        """A statistic with the percentile interval of its resamples `[R]`, the finite ones."""
        finite = draws[torch.isfinite(draws)].double()
        if not len(finite) or not math.isfinite(float(value)):
            return NOTHING
        tail = (1 - self.level) / 2
        low, high = torch.quantile(finite, torch.tensor([tail, 1 - tail], dtype=torch.float64))
        return Estimate(float(value), float(low), float(high))

    def mean(self, values: Tensor, weights: Tensor) -> Estimate:
        """Mean of `[n]` values."""
        return self.estimate(values.double().mean(), weighted_mean(values, weights))

    def median_ratio(self, above: Tensor, over: Tensor, below: Tensor, under: Tensor) -> Estimate:
        """Median of some values over the median of others.

        Args:
            above: `[n]` values.
            over: `[R, n]`, their weights.
            below: `[m]` values.
            under: `[R, m]`, their weights.
        """
        if not len(above) or not len(below):
            return NOTHING
        ratio = median(above) / median(below)
        return self.estimate(ratio, weighted_median(above, over) / weighted_median(below, under))


def median(values: Tensor) -> Tensor:
    """The lower median of `[n]` values, float64, as `weighted_median` takes it."""
    return weighted_median(values, torch.ones(1, len(values)))[0]


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """`[R]` medians of `[n]` values with weights `[R, n]`."""
    order = values.argsort()
    total = weights[:, order].cumsum(1)
    half = total[:, -1:] / 2
    return values[order].double()[(total < half).sum(1).clamp(max=len(values) - 1)]


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """`[R]` means of `[n]` values with weights `[R, n]`."""
    weights = weights.double()
    return (weights @ values.double()) / weights.sum(1)


def permutation_test(
    nearest: Tensor, runs: Tensor, training: Tensor, seed: int, permutations: int = 2000
) -> float:
    """Whether samples are nearer to the training runs than chance would have it.

    If samples were new, training and held-out runs would be exchangeable: the share of samples
    whose nearest network is a training one is compared with what random relabellings of whole
    runs give. That accounts for networks that are near to many samples at once, which a binomial
    interval does not.

    Args:
        nearest: `[S]`, position of each sample's nearest network in the pool of both sets.
        runs: `[P]`, the run of each network of the pool.
        training: `[P]` bool, which networks are training ones.
        seed: Seed of the permutations.
        permutations: Their number.

    Returns:
        One-sided p value.
    """
    number = runs.unique(return_inverse=True)[1]
    count = int(number.max()) + 1
    is_training = torch.zeros(count, dtype=torch.bool)
    is_training[number[training]] = True
    hits = torch.bincount(number[nearest], minlength=count).double()
    observed = hits[is_training].sum()
    random = torch.rand(permutations, count, generator=seeded("audit permutation", seed))
    chosen = random.argsort(1)[:, : int(is_training.sum())]
    null = hits[chosen].sum(1)
    return float((1 + (null >= observed).sum()) / (1 + permutations))
