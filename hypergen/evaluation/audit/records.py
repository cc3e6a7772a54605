"""What an audit compares: networks with their runs and tasks, and what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hypergen._utils.errors import UsageError, WeightsError
from hypergen._utils.seeding import generator as seeded


@dataclass(frozen=True)
class Networks:
    """N networks.

    Attributes:
        flat: `[N, numel]`.
        groups: `[N]`, what was drawn together: the run of a checkpoint, the condition of a sample.
        tasks: `[N]`, number of the task that each is for.
    """

    flat: Tensor
    groups: Tensor
    tasks: Tensor

    @staticmethod
    def of(
        flat: Tensor,
        groups: Sequence[object] | Tensor | None = None,
        tasks: Tensor | None = None,
    ) -> Networks:
        """Numbers runs of any name; without them every network is a run of its own.

        Raises:
            WeightsError: Another number of runs or tasks than networks.
        """
        count = len(flat)
        if groups is None:
            number = torch.arange(count)
        elif isinstance(groups, Tensor):
            number = groups.long()
        else:
            named: dict[object, int] = {}
            number = torch.tensor([named.setdefault(g, len(named)) for g in groups]).long()
        tasks = torch.zeros(count, dtype=torch.long) if tasks is None else tasks.long()
        if flat.dim() != 2 or number.shape != (count,) or tasks.shape != (count,):
            raise WeightsError(
                f"networks are [N, numel] with [N] runs and tasks, not {list(flat.shape)} with "
                f"{list(number.shape)} and {list(tasks.shape)}"
            )
        return Networks(flat, number, tasks)

    def __len__(self) -> int:
        return len(self.flat)

    def __getitem__(self, index: Tensor) -> Networks:
        return Networks(self.flat[index], self.groups[index], self.tasks[index])

    @property
    def runs(self) -> int:
        """Number of different groups."""
        return len(self.groups.unique())

    def cut(self, most: int, seed: int, name: str) -> Tensor:
        """Positions of whole groups, drawn at random, that hold at most `most` networks.

        Always at least one group; all positions where there are not more.
        """
        return cut_groups(self.groups, most, seed, name)


def cut_groups(groups: Tensor, most: int, seed: int, name: str) -> Tensor:
    """See `Networks.cut`."""
    if len(groups) <= most:
        return torch.arange(len(groups))
    number = groups.unique(return_inverse=True)[1]
    sizes = torch.bincount(number)
    order = torch.randperm(len(sizes), generator=seeded("audit cut", seed, name))
    kept = order[sizes[order].cumsum(0) <= most]
    kept = kept if len(kept) else order[:1]
    found: Tensor = torch.from_numpy(np.isin(number.numpy(), kept.numpy())).nonzero()[:, 0]
    return found


@dataclass(frozen=True)
class Behaviour:
    """What N networks do on the samples of a test.

    Attributes:
        quality: `[N]`, high is good.
        predictions: `[N, n]` classes; None where nothing is classified.
        tasks: `[N]`, the tasks that they were scored on.
    """

    quality: Tensor
    predictions: Tensor | None
    tasks: Tensor


@dataclass(frozen=True)
class Judge:
    """Scores networks.

    Attributes:
        score: (`[N, numel]` weights, `[N]` task numbers or None, whether they were generated) →
            what they do. Without task numbers each is scored on the task that it does best.
        answers: `[tasks, n]` right classes; None where nothing is classified.
        quality: What `Behaviour.quality` is: `"accuracy"`, `"psnr"`, ….
    """

    score: Callable[[Tensor, Tensor | None, bool], Behaviour]
    answers: Tensor | None
    quality: str = "accuracy"


LEAST_TRAINING, LEAST_HELDOUT, LEAST_SAMPLES = 8, 4, 8


def check(samples: Networks, training: Networks, heldout: Networks) -> None:
    """Refuses what cannot be audited.

    Raises:
        UsageError: Too few runs or samples; says how many there are.
        WeightsError: Other numbers of weights, or NaN or infinity.
    """
    for name, found, least in (
        ("training", training, LEAST_TRAINING),
        ("held-out", heldout, LEAST_HELDOUT),
    ):
        if found.runs < least:
            raise UsageError(
                f"the {name} zoo has {len(found)} checkpoints of {found.runs} runs; an audit needs "
                f"at least {least} runs: distances within a run say nothing"
            )
    if len(samples) < LEAST_SAMPLES:
        raise UsageError(
            f"{len(samples)} samples are too few for an audit: {LEAST_SAMPLES} at least"
        )
    numel = training.flat.shape[1]
    for name, found in (("samples", samples), ("held-out networks", heldout)):
        if found.flat.shape[1] != numel:
            raise WeightsError(
                f"the {name} have {found.flat.shape[1]} numbers each, the training networks {numel}"
            )
    for name, found in (("sample", samples), ("training", training), ("held-out", heldout)):
        bad = (~torch.isfinite(found.flat)).any(1)
        if bool(bad.any()):
            raise WeightsError(
                f"{int(bad.sum())} of {len(found)} {name} networks contain NaN or infinity, the "
                f"first is number {int(bad.nonzero()[0])}"
            )
    if not set(training.groups.tolist()).isdisjoint(heldout.groups.tolist()):
        raise UsageError("training and held-out zoo share runs: held-out runs must be other ones")
