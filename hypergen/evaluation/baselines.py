"""The baselines that every evaluation prints beside the generated weights.

All are stacked: networks and the tasks that they are scored on are two index vectors, and scoring
runs over chunks of them, never over single tasks.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import UsageError
from hypergen._utils.progress import progress
from hypergen._utils.seeding import generator as seeded
from hypergen.conditions import Condition
from hypergen.evaluation.zoo import Zoo
from hypergen.generators import Generator
from hypergen.specs import Weights
from hypergen.targets import Target
from hypergen.zoo import TaskSuite, train_weights

METHODS = ("base", "mean", "nearest", "shuffled", "multitask", "generated", "oracle")


class Scorer:
    """Scores networks on tasks, chunk by chunk.

    Args:
        suite: The tasks.
        target: The frozen target.
        samples: Split of the samples.
        chunk: Networks scored at a time.
    """

    def __init__(
        self, suite: TaskSuite, target: Target, samples: str = "test", chunk: int = 512
    ) -> None:
        self.suite, self.target, self.samples, self.chunk = suite, target, samples, chunk

    @torch.no_grad()
    def score(self, weights: Weights, row: Tensor, tasks: Tensor) -> Tensor:
        """Scores `weights[row[i]]` on `tasks[i]`; equal pairs are scored once.

        Args:
            weights: Networks.
            row: `[P]`.
            tasks: `[P]` task numbers.

        Returns:
            `[P]`, on the CPU.
        """
        pairs, inverse = torch.stack([row, tasks], 1).unique(dim=0, return_inverse=True)
        parts = [
            self.suite.score(self.target, weights[part[:, 0]], part[:, 1], self.samples).cpu()
            for part in pairs.split(self.chunk)
        ]
        return torch.cat(parts)[inverse]

    @torch.no_grad()
    def base(self, tasks: Tensor) -> Tensor:
        """Scores the unchanged network on each task, `[P]`; works for every kind of spec."""
        spec, target = self.target.spec, self.target
        parts = []
        for part in tasks.split(self.chunk):
            # Never read: the call below ignores them. One number, seen as many.
            blank = spec.from_flat(torch.zeros(1, 1).expand(len(part), spec.numel))

            def call(_: Weights, batch: Any) -> Any:
                return target.base(batch)

            parts.append(self.suite.score(call, blank, part, self.samples).cpu())
        return torch.cat(parts)


def derangement(keys: Sequence[Hashable], seed: int = 0) -> Tensor:
    """A seeded random permutation that gives every task another one of a different key.

    Args:
        keys: One key a task; tasks of equal keys have the same right answers.
        seed: Seed.

    Returns:
        `[n]`, a permutation without fixed keys. When one key has more than half of the tasks no
        such permutation exists: as few as possible keep their key, and those hold -1.
    """
    names = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    group = torch.tensor([names[key] for key in keys])
    random = seeded("derangement", seed)
    shuffled = torch.randperm(len(keys), generator=random)
    rank = torch.randperm(len(names), generator=random)
    order = shuffled[rank[group[shuffled]].argsort(stable=True)]  # tasks of a key side by side
    shift = int(torch.bincount(group).max())
    partner = torch.empty(len(keys), dtype=torch.long)
    partner[order] = order.roll(-shift)
    return torch.where(group[partner] == group, -1, partner)


def describe(
    suite: TaskSuite, tasks: Sequence[int], wordings: str, limit: int | None = None
) -> tuple[list[str], Tensor]:
    """The descriptions of some tasks.

    Args:
        suite: The tasks.
        tasks: `[n]` task numbers.
        wordings: Split of the wordings.
        limit: Most descriptions of a task.

    Returns:
        `[P]` descriptions, and `[P]`, the position in `tasks` of each.
    """
    lists = [suite.descriptions[wordings][task][:limit] for task in tasks]
    unit = torch.arange(len(lists)).repeat_interleave(torch.tensor([len(part) for part in lists]))
    return [text for part in lists for text in part], unit


def encode(generator: Generator, texts: list[str], chunk: int = 4096) -> Condition:
    """Encodes raw conditions under the encoder's own input name, without gradients."""
    name = generator.encoder.input_name
    with torch.no_grad():
        parts = [
            generator.encode(**{name: texts[i : i + chunk]}) for i in range(0, len(texts), chunk)
        ]
    return Condition.cat(parts) if len(parts) > 1 else parts[0]


@dataclass(frozen=True, eq=False)
class DescriptionBank:
    """What the training tasks were described by, encoded: `nearest` searches it.

    Attributes:
        pooled: `[M, D]` pooled conditions.
        tasks: `[M]` task numbers.
    """

    pooled: Tensor
    tasks: Tensor

    @staticmethod
    def encode(
        generator: Generator, suite: TaskSuite, tasks: Sequence[int], wordings: str = "train"
    ) -> DescriptionBank:
        """Encodes the descriptions of some tasks; the slow part, once for each run."""
        texts, unit = describe(suite, tasks, wordings)
        if not texts:
            raise UsageError(f"no training task has a description in {wordings!r}")
        pooled = encode(generator, texts).pooled
        return DescriptionBank(pooled.cpu(), torch.as_tensor(tasks, dtype=torch.long)[unit])

    def nearest(self, pooled: Tensor, chunk: int = 4096) -> Tensor:
        """Task of the most similar description by cosine, the first one among equals.

        Args:
            pooled: `[P, D]`.
            chunk: Rows compared at a time.

        Returns:
            `[P]` task numbers.
        """
        bank = F.normalize(self.pooled, dim=-1).T
        rows = F.normalize(pooled.cpu(), dim=-1).split(chunk)
        return self.tasks[torch.cat([(part @ bank).argmax(1) for part in rows])]


def oracles(
    target: Target,
    suite: TaskSuite,
    tasks: Tensor,
    known: Zoo | None,
    *,
    steps: int,
    chunk: int = 512,
    **options: Any,
) -> Zoo | None:
    """Weights trained on each task itself.

    Tasks of the zoo have theirs already; the others are trained as the zoo was.

    Args:
        target: The frozen target.
        suite: The tasks.
        tasks: `[n]` task numbers.
        known: Weights that are there already.
        steps: Optimiser steps; 0 trains nothing.
        chunk: Networks trained at a time.
        **options: Further arguments of `hypergen.zoo.train_weights`.

    Returns:
        At least one network for each task, or None if some would have to be trained in 0 steps.
    """
    wanted = tasks.unique()
    if known is not None:
        found = known.rows(wanted)
        have, wanted = found[found >= 0], wanted[found < 0]
    parts = [] if known is None or not len(have) else [(known.weights[have], known.tasks[have])]
    if len(wanted) and steps < 1:
        return None
    for part in progress(wanted.split(chunk), desc="training oracles", unit="chunk"):
        if len(part):
            weights = train_weights(target, target.spec, suite, part, steps=steps, **options)
            parts.append((weights, part))
    if not parts:
        return None
    return Zoo(Weights.cat([w for w, _ in parts]), torch.cat([t for _, t in parts]))
