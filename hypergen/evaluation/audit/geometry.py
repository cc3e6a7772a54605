"""Where samples lie among training and held-out networks: the audit of weights alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.seeding import generator as seeded
from hypergen.evaluation.audit.copying import copy_test_of, data_copying_of
from hypergen.evaluation.audit.hull import affine_residual, centred, convex_residual
from hypergen.evaluation.audit.records import Networks, cut_groups
from hypergen.evaluation.audit.resample import (
    NOTHING,
    Estimate,
    Resampler,
    median,
)
from hypergen.evaluation.audit.space import Mapped, Space

LEFT_OUT = 512  # most training networks whose nearest neighbour is looked for
COPY_LEVEL = 0.05  # share of held-out networks that lie below the threshold of a copy
MIXED = 16  # training networks of a convex combination
_SPANNED = 1e-3  # residuals below this share of the spread are zero


@dataclass(frozen=True)
class Geometry:
    """Distances of one space. Intervals come from resampling runs (and conditions of samples).

    Attributes:
        space: `"plain"` or `"canonical"`.
        scale: Median distance of a training network to the nearest one of another run: the unit
            of `novelty`.
        ratio: R, median distance of samples to the nearest training network, in that unit.
        ratio_heldout: The same of held-out networks.
        copy_test: Share of samples that are nearer to the training set than to the held-out set,
            of as many networks each (see `copy_test_of`).
        copy_p: One-sided p value of `copy_test`, by relabelling runs.
        data_copying: How often a sample is nearer to the training set than a held-out network is:
            the data-copying test of Meehan, Chaudhuri and Dasgupta ("A Three Sample Hypothesis Test
            for Evaluating Generative Models", AISTATS 2020, arXiv:2004.05675), which uses all
            training networks, however few are held out.
        copy_rate: Share of samples nearer to a training network than `copy_threshold`.
        copy_threshold: 5% quantile of held-out networks' `novelty`.
        affine: Median residual of samples to the affine hull of the training networks, over that of
            held-out networks; NaN where the hull spans everything.
        convex: The same of the best convex combination of 16 training networks.
        residuals: `samples` and `heldout` → `affine` and `convex` → median residual, as a share of
            the training networks' median distance from their mean.
        coverage: Share of samples with a nearest training network of their own (distinct ones over
            samples), over the same of as many held-out networks.
        coverage_share: That share, of `samples` and of `heldout`.
        diversity: Median distance between samples over that between training runs.
        novelty: `samples`, `heldout`, `training` → `[n]` distance to the nearest training network
            (of another run) in units of `scale`.
        nearest: `samples`, `heldout`, `training` and `pool` → positions of the nearest networks.
        duplicates: Training networks (of those looked at) that equal one of another run.
        shared: Held-out networks that equal a training network.
        leaked: Samples that equal a held-out network.
    """

    space: str
    scale: float
    ratio: Estimate
    ratio_heldout: Estimate
    copy_test: Estimate
    copy_p: float
    data_copying: Estimate
    copy_rate: Estimate
    copy_threshold: float
    affine: Estimate
    convex: Estimate
    residuals: dict[str, dict[str, float]]
    coverage: Estimate
    coverage_share: dict[str, float]
    diversity: Estimate
    novelty: dict[str, Tensor]
    nearest: dict[str, Tensor]
    duplicates: int
    shared: int
    leaked: int

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single distances."""
        out: dict[str, Any] = {}
        for name, value in vars(self).items():
            if name not in ("space", "novelty", "nearest"):
                out[name] = value.to_dict() if isinstance(value, Estimate) else value
        return out


def measure(
    space: Space,
    samples: Networks,
    training: Networks,
    heldout: Networks,
    resampler: Resampler,
    mapped: Mapped | None = None,
    before: Geometry | None = None,
) -> Geometry:
    """Takes all distances of one space.

    Args:
        space: Where to take them.
        samples: S networks; `groups` are their conditions, or all different.
        training: T networks with their runs.
        heldout: H networks with their runs.
        resampler: Draws the intervals.
        mapped: The networks in this space, where they are there already.
        before: What was found in another space, whose nearest networks may be near here too.
    """
    own = Mapped.of(space, samples, training, heldout) if mapped is None else mapped
    draws = {
        "samples": resampler.weights(samples.groups, "samples"),
        "training": resampler.weights(training.groups, "training"),
        "heldout": resampler.weights(heldout.groups, "heldout"),
    }
    inner = space.products(own.training, own.training)
    square = inner.diagonal().clone()
    between = (square[:, None] + square[None] - 2 * inner).clamp_(min=0).sqrt_()
    same_run = training.groups[:, None] == training.groups[None]
    rows = cut_groups(training.groups, LEFT_OUT, resampler.seed, "left out")
    hints = {} if before is None else before.nearest
    apart = space.refine(
        own.training[rows],
        own.training,
        between.masked_fill(same_run, torch.inf)[rows],
        hints.get("training"),
    )
    left_out = apart.min(1).values
    left_draws = draws["training"][:, rows]
    scale = float(median(left_out))
    if not scale > 0:  # more than half of the training networks equal another run's
        scale = math.nan
    squares = {"samples": space.squares(own.samples), "heldout": space.squares(own.heldout)}
    products = {
        "samples": space.products(own.samples, own.training),
        "heldout": space.products(own.heldout, own.training),
    }
    to_training = {
        name: (squares[name][:, None] + square[None] - 2 * products[name]).clamp_(min=0).sqrt_()
        for name in products
    }
    for name, part in (("samples", own.samples), ("heldout", own.heldout)):
        to_training[name] = space.refine(part, own.training, to_training[name], hints.get(name))
    found = {name: distances.min(1) for name, distances in to_training.items()}
    novelty = {name: closest.values / scale for name, closest in found.items()}
    novelty["training"] = left_out / scale

    residuals, ratios = _residuals(inner, products, squares, draws, resampler)
    copy_test, copy_p, pool = copy_test_of(
        space,
        own,
        to_training["samples"],
        samples,
        training,
        heldout,
        resampler,
        hints.get("pool"),
    )
    threshold = float(torch.quantile(novelty["heldout"], COPY_LEVEL))
    rate = resampler.mean((novelty["samples"] < threshold).double(), draws["samples"])
    coverage, shares = _coverage(found["samples"].indices, found["heldout"].indices, resampler.seed)
    typical = between.masked_fill(same_run, torch.nan).nanmedian(1).values
    tiny = 1e-6 * float(square.mean().sqrt())
    return Geometry(
        space=space.name,
        scale=scale,
        ratio=resampler.median_ratio(
            found["samples"].values, draws["samples"], left_out, left_draws
        ),
        ratio_heldout=resampler.median_ratio(
            found["heldout"].values, draws["heldout"], left_out, left_draws
        ),
        copy_test=copy_test,
        copy_p=copy_p,
        data_copying=data_copying_of(novelty["samples"], novelty["heldout"], draws, resampler),
        copy_rate=rate,
        copy_threshold=threshold,
        affine=ratios["affine"],
        convex=ratios["convex"],
        residuals=residuals,
        coverage=coverage,
        coverage_share=shares,
        diversity=resampler.median_ratio(
            _spread(space, own.samples), draws["samples"], typical, draws["training"]
        ),
        novelty=novelty,
        nearest={name: closest.indices for name, closest in found.items()}
        | {"training": apart.argmin(1), "pool": pool},
        duplicates=int((left_out <= tiny).sum()),
        shared=int((found["heldout"].values <= tiny).sum()),
        leaked=int((space.distances(own.samples, own.heldout).min(1).values <= tiny).sum()),
    )


def _spread(space: Space, samples: Tensor) -> Tensor:
    """`[S]`, median distance of each sample to the other samples."""
    distances = space.distances(samples, samples)
    distances.fill_diagonal_(torch.nan)
    return distances.nanmedian(1).values


def _residuals(
    inner: Tensor,
    products: dict[str, Tensor],
    squares: dict[str, Tensor],
    draws: dict[str, Tensor],
    resampler: Resampler,
) -> tuple[dict[str, dict[str, float]], dict[str, Estimate]]:
    """Median residuals, and samples' over held-out networks', by kind of hull."""
    counts = [len(products[name]) for name in products]
    gram, cross, square = centred(
        inner, torch.cat(list(products.values())), torch.cat(list(squares.values()))
    )
    spread = median(gram.diagonal().clamp(min=0).sqrt())
    found = {
        "affine": affine_residual(gram, cross, square),
        "convex": convex_residual(gram, cross, square, MIXED),
    }
    medians: dict[str, dict[str, float]] = {name: {} for name in products}
    ratios: dict[str, Estimate] = {}
    for kind, values in found.items():
        ours, theirs = (values / spread).split(counts)
        medians["samples"][kind] = float(median(ours))
        medians["heldout"][kind] = float(median(theirs))
        ratios[kind] = (
            resampler.median_ratio(ours, draws["samples"], theirs, draws["heldout"])
            if medians["heldout"][kind] > _SPANNED
            else NOTHING
        )
    return medians, ratios


def _coverage(
    samples: Tensor, heldout: Tensor, seed: int, draws: int = 500
) -> tuple[Estimate, dict[str, float]]:
    """Distinct nearest training networks of equally many samples and held-out networks.

    Drawn without replacement: a bootstrap would draw some twice, and count them once.
    """
    size = min(len(samples), len(heldout))
    # With all drawn there is nothing left to vary: four fifths of them show the spread.
    part = max(2, (4 * size) // 5)
    resampler = Resampler(seed)
    shares = []
    for name, nearest in (("samples", samples), ("heldout", heldout)):
        weights = torch.rand(draws, len(nearest), generator=seeded("audit coverage", seed, name))
        chosen = nearest[weights.argsort(1)[:, :part]].sort(1).values
        shares.append(((chosen[:, 1:] != chosen[:, :-1]).sum(1) + 1) / part)
    ours, theirs = shares
    ratio = resampler.estimate(ours.mean() / theirs.mean(), ours / theirs)
    return ratio, {"samples": float(ours.mean()), "heldout": float(theirs.mean())}
