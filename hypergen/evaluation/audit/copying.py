"""Whether samples are nearer to training networks than new networks would be."""

from __future__ import annotations

import torch
from torch import Tensor

from hypergen.evaluation.audit.records import Networks, cut_groups
from hypergen.evaluation.audit.resample import Estimate, Resampler, permutation_test
from hypergen.evaluation.audit.space import Mapped, Space

_COPY_RESAMPLES = 300


def copy_test_of(
    space: Space,
    own: Mapped,
    to_training: Tensor,
    samples: Networks,
    training: Networks,
    heldout: Networks,
    resampler: Resampler,
    hints: Tensor | None,
) -> tuple[Estimate, float, Tensor]:
    """How often a sample is nearer to training than to held-out networks, of equal number.

    Returns:
        The share, over random halves of the runs of both sets (few networks that are near to many
        samples would decide alone otherwise); the p value, from all of them; and the nearest
        network of both sets for each sample.
    """
    size = min(len(training), len(heldout))
    ours, theirs = _equally_many(
        {"training": training.groups, "heldout": heldout.groups}, size, resampler.seed
    )
    to_heldout = space.distances(own.samples, own.heldout[theirs])
    pool = torch.cat([own.training[ours], own.heldout[theirs]])
    both = torch.cat([to_training[:, ours], to_heldout], dim=1)
    both = space.refine(own.samples, pool, both, hints)
    order = both.argsort(1)
    is_training = torch.arange(len(pool)) < len(ours)
    weights = resampler.weights(samples.groups, "samples")
    shares = []
    pools = training.groups[ours], heldout.groups[theirs]
    for r in range(min(_COPY_RESAMPLES, resampler.resamples)):
        names = f"half 0 {r}", f"half {len(ours)} {r}"
        halves = _equally_many(
            dict(zip(names, pools, strict=True)), max(1, len(ours) // 2), resampler.seed
        )
        half = torch.zeros(len(pool), dtype=torch.bool)
        half[torch.cat([halves[0], halves[1] + len(ours)])] = True
        # The nearest network among those that were drawn.
        first = half[order].to(torch.uint8).argmax(1, keepdim=True)
        hits = is_training[order.gather(1, first)[:, 0]].double()
        shares.append((weights[r].double() @ hits) / weights[r].sum())
    nearest = order[:, 0]
    runs = torch.cat(pools)
    return (
        resampler.estimate(torch.stack(shares).mean(), torch.stack(shares)),
        permutation_test(nearest, runs, is_training, resampler.seed),
        nearest,
    )


def _equally_many(sets: dict[str, Tensor], most: int, seed: int) -> list[Tensor]:
    """Positions in sets of networks, whole runs as far as these are small enough.

    Args:
        sets: Name → runs of the networks.
        most: Most networks of each set, unless one run has more.
        seed: Seed of the draws.
    """
    drawn = [cut_groups(groups, most, seed, name) for name, groups in sets.items()]
    size = min(len(kept) for kept in drawn)
    return [kept[torch.linspace(0, len(kept) - 1, size).round().long()] for kept in drawn]


def data_copying_of(
    samples: Tensor, heldout: Tensor, draws: dict[str, Tensor], resampler: Resampler
) -> Estimate:
    """How often a sample is nearer to the training networks than a held-out network is."""
    nearer = (samples[:, None] < heldout[None]).double()
    nearer += 0.5 * (samples[:, None] == heldout[None])
    ours, theirs = draws["samples"].double(), draws["heldout"].double()
    share = ((ours @ nearer) * theirs).sum(1) / (ours.sum(1) * theirs.sum(1))
    return resampler.estimate(nearer.mean(), share)
