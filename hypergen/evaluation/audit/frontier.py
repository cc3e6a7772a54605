"""Accuracy against novelty: samples beside everything that needs no generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergen.evaluation.audit.resample import Estimate, Resampler

AXES = {
    "plain": "distance to the nearest training network",
    "canonical": "distance to the nearest training network, units matched",
    "behaviour": "1 - largest overlap of wrong predictions with a training network",
}


@dataclass(frozen=True)
class Cloud:
    """Networks of one kind, as points.

    Attributes:
        kind: `samples`, `heldout`, `training` or the kind of a baseline.
        label: Words for tables and plots.
        quality: `[n]`, high is good.
        novelty: Axis → `[n]`.
        tasks: `[n]`, the tasks that they were scored on.
    """

    kind: str
    label: str
    quality: Tensor
    novelty: dict[str, Tensor]
    tasks: Tensor


@dataclass(frozen=True)
class Dominated:
    """Shares of networks that a baseline beats or equals in both accuracy and novelty.

    Attributes:
        samples: Of samples.
        heldout: Of held-out networks: what real new networks get.
        by: Kind of baseline → share of the samples that one of its networks dominates.
        mask: `[S]` bool, which samples.
    """

    samples: Estimate
    heldout: Estimate
    by: dict[str, float]
    mask: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Everything but the mask."""
        return {
            "samples": self.samples.to_dict(),
            "heldout": self.heldout.to_dict(),
            "by": self.by,
        }


def comparable(baselines: Sequence[Cloud], axis: str) -> list[Cloud]:
    """The baselines whose novelty on an axis means something.

    Networks whose units were matched are far from all others as they are, whatever they do.
    """
    return [b for b in baselines if axis != "plain" or not b.kind.endswith("_canonical")]


def dominates(baseline: Cloud, cloud: Cloud, axis: str, same_task: bool) -> Tensor:
    """`[n]` bool: whether a network of the baseline is as good and as new, and better in one."""
    quality, novelty = baseline.quality[None], baseline.novelty[axis][None]
    own, new = cloud.quality[:, None], cloud.novelty[axis][:, None]
    beaten = (quality >= own) & (novelty >= new) & ((quality > own) | (novelty > new))
    if same_task:
        beaten &= baseline.tasks[None] == cloud.tasks[:, None]
    return beaten.any(1)


def find_dominated(
    samples: Cloud,
    heldout: Cloud,
    baselines: Sequence[Cloud],
    axis: str,
    weights: tuple[Tensor, Tensor],
    resampler: Resampler,
    same_task: bool = False,
) -> Dominated:
    """Compares samples and held-out networks with all baselines.

    Args:
        samples: The samples.
        heldout: Held-out networks.
        baselines: The baselines.
        axis: Which novelty.
        weights: Resampling weights of the two, see `Resampler.weights`.
        resampler: Draws the intervals.
        same_task: Compare only with networks for the same task; networks whose task no baseline
            has are left out.
    """
    baselines = comparable(baselines, axis)
    estimates: list[Estimate] = []
    masks: list[list[Tensor]] = []
    for cloud, own in zip((samples, heldout), weights, strict=True):
        each = [dominates(baseline, cloud, axis, same_task) for baseline in baselines]
        beaten = torch.stack(each).any(0)
        covered = torch.ones_like(beaten)
        if same_task:
            covered = torch.isin(cloud.tasks, torch.cat([b.tasks for b in baselines]))
        masks.append(each)
        counted = own.double() * covered
        share = (beaten & covered).double().sum() / covered.sum()
        estimates.append(
            resampler.estimate(share, (counted @ (beaten & covered).double()) / counted.sum(1))
        )
    by = {b.kind: float(m.double().mean()) for b, m in zip(baselines, masks[0], strict=True)}
    ours, theirs = estimates
    return Dominated(ours, theirs, by, torch.stack(masks[0]).any(0))


def frontier(baselines: Sequence[Cloud], axis: str) -> Tensor:
    """`[F, 2]` (novelty, quality) of baseline networks that no other one dominates, by novelty."""
    baselines = comparable(baselines, axis)
    quality = torch.cat([b.quality for b in baselines]).double()
    novelty = torch.cat([b.novelty[axis] for b in baselines]).double()
    points = torch.stack([novelty, quality], dim=1)
    points = points[torch.isfinite(points).all(1)]
    # From the newest on: those that are better than all that are newer.
    points = points[points[:, 1].argsort(descending=True, stable=True)]
    points = points[points[:, 0].argsort(descending=True, stable=True)]
    best = points[:, 1].cummax(0).values
    first = torch.ones(len(points), dtype=torch.bool)
    first[1:] = points[1:, 1] > best[:-1]
    return points[first].flip(0)
