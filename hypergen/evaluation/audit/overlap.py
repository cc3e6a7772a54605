"""Whether networks are wrong where training networks are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen.evaluation.audit.records import Behaviour, Networks
from hypergen.evaluation.audit.resample import NOTHING, Estimate, Resampler

BINS = 8
_NUMBERS = 1 << 26  # numbers of one-hot predictions that are held at a time


@dataclass(frozen=True)
class Overlap:
    """Intersection over union of wrong predictions with the most similar training network.

    Attributes:
        samples: Mean over samples of the largest overlap with a training network.
        heldout: The same of held-out networks, with the same training networks.
        excess: Samples' minus held-out networks' in bins of equal accuracy, weighted by the
            samples in each; NaN where no bin holds both.
        matched: Share of samples in bins that also hold a held-out network; the bins are the
            eighths of held-out networks by accuracy.
        bins: For each bin: its edges, the numbers in it and the two means.
        values: `samples` and `heldout` → `[n]` largest overlaps.
    """

    samples: Estimate
    heldout: Estimate
    excess: Estimate
    matched: float
    bins: list[dict[str, float]]
    values: dict[str, Tensor]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single overlaps."""
        return {
            "samples": self.samples.to_dict(),
            "heldout": self.heldout.to_dict(),
            "excess": self.excess.to_dict(),
            "matched": self.matched,
            "bins": self.bins,
        }


def largest_overlap(
    predictions: Tensor, tasks: Tensor, training: Tensor, answers: Tensor
) -> Tensor:
    """Largest intersection over union of wrong predictions with any training network.

    Both are judged by the answers of the network's own task, so that a training network of another
    task counts as wrong where it answers that other task. With one-hot predictions P, answers Y and
    w = 1 where a network is wrong, |w ∧ w'| = |w| - Σ (w Y) P' and |w'| = n - Σ Y P': two matrix
    products for all pairs.

    Args:
        predictions: `[N, n]` classes.
        tasks: `[N]` task numbers.
        training: `[T, n]` classes.
        answers: `[tasks, n]` right classes.

    Returns:
        `[N]`, from 0 to 1; 0 where nothing is wrong.
    """
    present, own = tasks.unique(return_inverse=True)
    right = answers[present]
    wrong = (predictions != right[own]).float()
    if len(present) == 1:
        theirs = (training != right).float()
        common, count = wrong @ theirs.T, theirs.sum(1)[None]
    else:
        classes = int(max(answers.max(), predictions.max(), training.max())) + 1
        common = wrong.sum(1, keepdim=True).repeat(1, len(training))
        count = torch.full((len(present), len(training)), float(answers.shape[1]))
        width = max(1, _NUMBERS // (classes * (len(predictions) + len(training) + len(present))))
        for start in range(0, answers.shape[1], width):
            part = slice(start, start + width)
            said = F.one_hot(training[:, part].long(), classes).flatten(1).float()
            key = F.one_hot(right[:, part].long(), classes).float()
            common -= (key[own] * wrong[:, part, None]).flatten(1) @ said.T
            count -= key.flatten(1) @ said.T
        count = count[own]
    union = wrong.sum(1, keepdim=True) + count - common
    return (common / union.clamp(min=1)).max(1).values


def compare(
    samples: Behaviour,
    training: Behaviour,
    heldout: Behaviour,
    groups: tuple[Networks, Networks],
    answers: Tensor,
    resampler: Resampler,
) -> Overlap:
    """Compares the overlaps of samples and of held-out networks.

    Worse networks are wrong in more places and overlap less, so that they look new: only networks
    of about the same accuracy are compared. Both take the largest overlap over the same training
    networks, and thus over equally many.

    Args:
        samples: What the samples do.
        training: What the training networks do.
        heldout: What the held-out networks do.
        groups: Samples and held-out networks, for their groups.
        answers: `[tasks, n]`.
        resampler: Draws the intervals.
    """
    assert samples.predictions is not None
    assert training.predictions is not None
    assert heldout.predictions is not None
    ours, theirs = (
        largest_overlap(b.predictions, b.tasks, training.predictions, answers).double()
        for b in (samples, heldout)
        if b.predictions is not None
    )
    weights = [
        resampler.weights(part.groups, name)
        for part, name in zip(groups, ("samples", "heldout"), strict=True)
    ]
    # Samples that are better or worse than every held-out network are compared with none.
    edges = torch.quantile(
        heldout.quality.double(), torch.linspace(0, 1, BINS + 1, dtype=torch.float64)
    )
    inside = [_inside(b.quality.double(), edges) for b in (samples, heldout)]
    excess = resampler.estimate(
        _matched(
            ours, inside[0], theirs, inside[1], torch.ones(1, len(ours)), torch.ones(1, len(theirs))
        )[0],
        _matched(ours, inside[0], theirs, inside[1], *weights),
    )
    counts = [m.sum(0) for m in inside]
    both = (counts[0] > 0) & (counts[1] > 0)
    bins = [
        {
            "from": float(edges[i]),
            "to": float(edges[i + 1]),
            "samples": int(counts[0][i]),
            "heldout": int(counts[1][i]),
            "overlap_samples": float((ours @ inside[0][:, i]) / counts[0][i]),
            "overlap_heldout": float((theirs @ inside[1][:, i]) / counts[1][i]),
        }
        for i in range(BINS)
    ]
    return Overlap(
        samples=resampler.mean(ours, weights[0]),
        heldout=resampler.mean(theirs, weights[1]),
        excess=excess if bool(both.any()) else NOTHING,
        matched=float(counts[0][both].sum() / len(ours)),
        bins=bins,
        values={"samples": ours, "heldout": theirs},
    )


def _inside(quality: Tensor, edges: Tensor) -> Tensor:
    """`[n, BINS]`, one-hot: the bin of each network; none outside of all."""
    place = torch.bucketize(quality, edges[1:-1], right=True)
    known = (quality >= edges[0]) & (quality <= edges[-1])
    return F.one_hot(place, BINS).double() * known[:, None]


def _matched(
    ours: Tensor,
    inside: Tensor,
    theirs: Tensor,
    inside_theirs: Tensor,
    weights: Tensor,
    weights_theirs: Tensor,
) -> Tensor:
    """`[R]` differences of means within bins, weighted by our members of each bin."""
    weights, weights_theirs = weights.double(), weights_theirs.double()
    count, count_theirs = weights @ inside, weights_theirs @ inside_theirs  # [R, bins]
    mean = weights @ (inside * ours[:, None]) / count
    mean_theirs = weights_theirs @ (inside_theirs * theirs[:, None]) / count_theirs
    both = (count > 0) & (count_theirs > 0)
    total = torch.where(both, count * (mean - mean_theirs), 0.0).sum(1)
    return total / (count * both).sum(1)
