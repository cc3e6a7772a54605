"""Training checkpoints, with what they are chosen by."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import ConditionError, SpecError, WeightsError, did_you_mean
from hypergen.generators.diffusion.training_rows import training_rows


@dataclass(frozen=True, eq=False)
class Anchors:
    """Checkpoints that a density is estimated from.

    Attributes:
        rows: Returns them, `[N, numel]`; called whenever they are needed.
        conditions: `[N, E]`, a pooled condition of each; None without conditions.
        scores: `[N]`, a metric of each, NaN where there is none; None without a metric.
    """

    rows: Callable[[], Tensor]
    conditions: Tensor | None = None
    scores: Tensor | None = None

    def choose(self, count: int, best: float, order: str, most: int | None) -> Tensor:
        """Positions of the `best` share of `count` checkpoints, `most` of them, in their order.

        Args:
            count: Number of checkpoints N.
            best: Share that is chosen by the scores; 1 for all.
            order: `"high"` or `"low"`: which scores are best.
            most: Most positions, evenly spaced; no limit when None.

        Raises:
            WeightsError: A share is to be chosen without scores, or with none that is finite.
        """
        chosen = torch.arange(count)
        if best < 1:
            scores = self.scores
            if scores is None or len(scores) != count or not bool(torch.isfinite(scores).any()):
                raise WeightsError(f"choosing the best of {count} checkpoints needs their scores")
            keys = scores.double() * (1 if order == "high" else -1)
            keys = keys.masked_fill(~torch.isfinite(keys), -torch.inf)
            wanted = min(max(1, round(best * count)), int(torch.isfinite(scores).sum()))
            chosen = keys.argsort(descending=True, stable=True)[:wanted].sort().values
        if most is not None and most < len(chosen):
            chosen = chosen[torch.linspace(0, len(chosen) - 1, most).round().long()]
        return chosen


def anchors_of(data: Any, metric: str | None, described: bool) -> Anchors:
    """The training checkpoints of a data module, with metrics and conditions if asked for.

    Args:
        data: Has `training_weights()` or a `zoo`; for a metric `splits["train"]`, the zoo of these
            checkpoints; for conditions `experts()`.
        metric: Name of the metric, `"split.name"`.
        described: Whether conditions are needed: of several descriptions of a checkpoint, the
            mean of their directions.

    Raises:
        SpecError: It has no checkpoints, or the metric is of none of them.
        ConditionError: It has no conditions.
    """
    rows = training_rows(data)
    if rows is None:
        raise SpecError(
            f"a density is estimated from stored weights, and {type(data).__name__} has none: give "
            "it a zoo"
        )
    scores = None if metric is None else _scores(data, metric)
    if not described:
        return Anchors(rows, None, scores)
    if not hasattr(data, "experts"):
        raise ConditionError(
            f"nearest needs the conditions of the checkpoints, and {type(data).__name__} has none"
        )
    experts = data.experts()
    unit = torch.nn.functional.normalize(experts.pooled.detach().cpu(), dim=-1)
    conditions = unit.new_zeros(len(experts.weights), unit.shape[1])
    return Anchors(rows, conditions.index_add_(0, experts.owner.cpu(), unit), scores)


def _scores(data: Any, metric: str) -> Tensor:
    if not hasattr(data, "splits"):
        raise SpecError(f"{type(data).__name__} keeps no metrics of its checkpoints")
    split, _, name = metric.partition(".")
    if split == "test":
        warnings.warn(
            f"{metric} chooses anchors: samples will look better on the test samples; take 'val' "
            "or 'train'",
            stacklevel=4,
        )
    found = [row.metrics for row in data.splits["train"].rows]
    values = [metrics.get(split, {}).get(name, float("nan")) for metrics in found]
    scores = torch.tensor(values, dtype=torch.float64)
    if not bool(torch.isfinite(scores).any()):
        known = sorted({f"{s}.{n}" for metrics in found for s, own in metrics.items() for n in own})
        raise SpecError(
            f"no training checkpoint has the metric {metric!r} (written as split.name)."
            f"{did_you_mean(metric, known)}"
        )
    return scores
