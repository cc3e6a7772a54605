"""Confidence intervals by resampling tasks, and descriptions within tasks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hypergen._utils.seeding import generator as seeded

_CHUNK = 1 << 22  # most numbers held at a time while resampling

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one method: one or several (descriptions) for each task; some tasks may have none.

    Attributes:
        values: `[P]`.
        unit: `[P]`, position of the task of each score, in `range(units)`.
        units: Number of tasks.
    """

    values: Tensor
    unit: Tensor
    units: int

    @staticmethod
    def of(values: Tensor) -> Scores:
        """One score for each task."""
        return Scores(values, torch.arange(len(values)), len(values))

    @cached_property
    def counts(self) -> Tensor:
        """`[units]`, scores of each task."""
        return torch.bincount(self.unit, minlength=self.units)

    @cached_property
    def per_task(self) -> Tensor:
        """`[units]`, mean over the task's scores; NaN where it has none."""
        total = torch.zeros(self.units, dtype=torch.float64)
        total.index_add_(0, self.unit, self.values.double())
        return total / self.counts

    @cached_property
    def spread(self) -> Tensor:
        """`[units]`, standard deviation over the task's scores; NaN where it has none."""
        total = torch.zeros(self.units, dtype=torch.float64)
        centred = self.values.double() - self.per_task[self.unit]
        return (total.index_add_(0, self.unit, centred.square()) / self.counts).sqrt()

    @property
    def mean(self) -> float:
        """Mean over tasks of each task's mean."""
        return float(self.per_task.nanmean())


class Bootstrap:
    """Resamples of one set of tasks, shared by all methods, so that differences are paired.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; percentile intervals. Where a
    task has several scores, they are resampled within the task too (two-stage bootstrap, Davison
    and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8), so that the
    interval also covers the choice of descriptions.

    Args:
        units: Number of tasks.
        resamples: Number of resamples.
        seed: Seed of the draws.
        level: Coverage of the intervals.

    Raises:
        ValueError: No tasks, no resamples, or a level outside (0, 1).
    """

    def __init__(
        self, units: int, resamples: int = 2000, seed: int = 0, level: float = 0.95
    ) -> None:
        if units < 1 or resamples < 1 or not 0 < level < 1:
            raise ValueError(f"cannot resample {units} tasks {resamples} times at level {level}")
        self.units, self.resamples, self.seed, self.level = units, resamples, seed, level
        self.draws = torch.randint(
            units, (resamples, units), generator=seeded("bootstrap", seed, "tasks")
        )

    def means(self, scores: Scores) -> Tensor:
        """Mean over tasks in each resample, `[resamples]`; tasks without a score are left out."""
        if scores.units != self.units:
            raise ValueError(f"scores of {scores.units} tasks, resamples of {self.units}")
        most = int(scores.counts.max())
        if most <= 1:
            return scores.per_task[self.draws].nanmean(1)
        order = scores.unit.argsort(stable=True)
        values = scores.values[order].double()
        first = scores.counts.cumsum(0) - scores.counts
        random = seeded("bootstrap", self.seed, "descriptions")
        out = []
        for draws in self.draws.split(max(1, _CHUNK // (self.units * most))):
            count = scores.counts[draws][..., None]
            uniform = torch.rand((*draws.shape, most), generator=random)
            index = (first[draws][..., None] + (uniform * count).long()).clamp(max=len(values) - 1)
            inside = torch.arange(most) < count  # as many draws as the task has scores
            means = (values[index] * inside).sum(-1) / count[..., 0]
            out.append(means.nanmean(1))
        return torch.cat(out)

    def interval(self, statistic: Tensor) -> Interval:
        """Percentile interval of a statistic's resamples `[resamples]`, the finite ones."""
        finite = statistic[torch.isfinite(statistic)].double()
        if not len(finite):
            return float("nan"), float("nan")
        tail = (1 - self.level) / 2
        low, high = torch.quantile(finite, torch.tensor([tail, 1 - tail], dtype=torch.float64))
        return float(low), float(high)

    def difference(self, a: Scores, b: Scores) -> Interval:
        """Interval of mean(a) - mean(b) over the same tasks, resampled together."""
        return self.interval(self.means(a) - self.means(b))


def gap_closed(
    generated: Tensor | float, base: Tensor | float, oracle: Tensor | float, floor: float = 1e-3
) -> Tensor:
    """(generated - base) / (oracle - base) of means; NaN where the oracle wins less than `floor`.

    Args:
        generated: Mean scores of the generated weights, of any shape.
        base: Mean scores of the unchanged base.
        oracle: Mean scores of weights trained on each task itself.
        floor: Smallest gap that can be closed.
    """
    values = (torch.as_tensor(v, dtype=torch.float64) for v in (generated, base, oracle))
    own, low, high = values
    return torch.where(high - low > floor, (own - low) / (high - low), torch.nan)
