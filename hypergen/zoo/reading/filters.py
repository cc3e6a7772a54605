"""Choosing and weighting checkpoints by how good they are."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen.zoo.store import Zoo


def metric_names(zoo: Zoo) -> list[str]:
    """Names of the metrics that any checkpoint has, as `"split.name"`, sorted."""
    found = {
        f"{split}.{name}"
        for row in zoo.rows
        for split, values in row.metrics.items()
        for name in values
    }
    return sorted(found)


def metric_values(zoo: Zoo, metric: str) -> np.ndarray:
    """`[N]` values of a metric `"split.name"` in float64, NaN where a checkpoint has none.

    Raises:
        UsageError: No checkpoint has it.
    """
    split, _, name = metric.partition(".")
    values = zoo.metric(split, name)
    if np.isnan(values).all():
        known = metric_names(zoo)
        raise UsageError(
            f"no checkpoint has the metric {metric!r} (written as split.name)"
            f".{did_you_mean(metric, known)}"
        )
    return values


def filter_metric(
    zoo: Zoo, metric: str, *, at_least: float | None = None, at_most: float | None = None
) -> Zoo:
    """Keeps checkpoints whose metric lies within bounds, which count as inside.

    Checkpoints without the metric are dropped.

    Args:
        zoo: Any view.
        metric: `"split.name"`, such as `"val.accuracy"`.
        at_least: Lower bound.
        at_most: Upper bound.

    Raises:
        UsageError: No bound, no checkpoint has the metric, or none lies within.
    """
    if at_least is None and at_most is None:
        raise UsageError("give at_least or at_most, or both")
    values = metric_values(zoo, metric)
    low = -math.inf if at_least is None else at_least
    high = math.inf if at_most is None else at_most
    keep = np.flatnonzero((values >= low) & (values <= high))
    if not len(keep):
        raise UsageError(
            f"no checkpoint has {metric} from {low:g} to {high:g}; the values go from "
            f"{np.nanmin(values):g} to {np.nanmax(values):g}"
        )
    return zoo[keep]


def top_fraction(
    zoo: Zoo,
    metric: str,
    fraction: float,
    *,
    per: Literal["task", "zoo"] = "task",
    best: Literal["high", "low"] = "high",
) -> Zoo:
    """Keeps the best checkpoints, of every task or of all.

    Hard tasks would vanish from a zoo that is filtered by one bar for all of them.

    Args:
        zoo: Any view; its order is kept.
        metric: `"split.name"`; checkpoints without it are dropped.
        fraction: Share that is kept, above 0 and up to 1; at least one checkpoint of each task.
        per: Within what the share is taken.
        best: Whether high or low values are good. Among equals the first are kept.

    Raises:
        UsageError: A fraction outside (0, 1], or no checkpoint has the metric.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"the fraction to keep is above 0 and at most 1, not {fraction}")
    values = metric_values(zoo, metric)
    score = values if best == "high" else -values
    labels = [row.task if per == "task" else "" for row in zoo.rows]
    number = np.unique(labels, return_inverse=True)[1]
    known = np.flatnonzero(~np.isnan(score))
    # Sorted by group, then from the best to the worst: the place within the group decides.
    order = known[np.lexsort((-score[known], number[known]))]
    group = number[order]
    sizes = np.bincount(group, minlength=number.max() + 1)
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Rounding errors must not add one: 0.1 · 30 is a little more than 3.
    quota = np.maximum(1, np.ceil(fraction * sizes - 1e-9))
    return zoo[np.sort(order[place < quota[group]])]


def sampling_weights(
    zoo: Zoo,
    metric: str,
    *,
    temperature: float = 1.0,
    best: Literal["high", "low"] = "high",
) -> Tensor:
    """Probabilities softmax(metric / temperature), for `torch.utils.data.WeightedRandomSampler`.

    Args:
        zoo: Any view.
        metric: `"split.name"`; checkpoints without it get 0.
        temperature: Above 0: small ones prefer the best, large ones are fair.
        best: Whether high or low values are good.

    Returns:
        `[N]` in float64, summing to 1.

    Raises:
        UsageError: The temperature is not positive, or no checkpoint has the metric.
    """
    if not temperature > 0:
        raise UsageError(f"the temperature must be positive, not {temperature}")
    values = torch.from_numpy(metric_values(zoo, metric))
    score = values if best == "high" else -values
    return torch.softmax((score / temperature).masked_fill(values.isnan(), -math.inf), 0)
