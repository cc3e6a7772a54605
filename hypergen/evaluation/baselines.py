"""The baselines that every evaluation prints beside the generated weights.

All are stacked: networks and the tasks that they are scored on are two index vectors, and scoring
runs over chunks of them, never over single tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import ConditionError, UsageError
from hypergen._utils.memory import memory_advice
from hypergen._utils.progress import progress
from hypergen._utils.seeding import generator as seeded
from hypergen.conditions import Condition
from hypergen.evaluation.zoo import Zoo
from hypergen.generators import Generator
from hypergen.specs import Weights
from hypergen.targets import Target
from hypergen.zoo import TaskSuite, train_weights
from hypergen.zoo.base_call import BaseCall


class Scorer:
    """Scores networks on tasks, chunk by chunk.

    Args:
        suite: The tasks.
        target: The frozen target.
        samples: Split of the samples.
        chunk: Networks scored at a time.
        done: Called with the number of pairs scored since the last call.
    """

    def __init__(
        self,
        suite: TaskSuite,
        target: Target,
        samples: str = "test",
        chunk: int = 512,
        done: Callable[[int], object] | None = None,
    ) -> None:
        self.suite, self.target, self.samples, self.chunk = suite, target, samples, chunk
        self.done = done

    def score(
        self, weights: Weights | None, row: Tensor, tasks: Tensor, wordings: Tensor | None = None
    ) -> Tensor:
        """The score alone, `[P]`; see `measure`."""
        return self._each(weights, row, tasks, wordings, False)["score"]

    def measure(
        self, weights: Weights | None, row: Tensor, tasks: Tensor, wordings: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Scores `weights[row[i]]` on `tasks[i]`; equal pairs are scored once.

        Args:
            weights: Networks; the unchanged one, whatever the kind of spec, when None.
            row: `[P]`.
            tasks: `[P]` task numbers.
            wordings: `[P]`, the description that the network is shown (`TaskSuite.wording`);
                ignored where the suite shows none.

        Returns:
            Metric (`score` and what else the suite measures) → `[P]`, on the CPU.
        """
        return self._each(weights, row, tasks, wordings, True)

    def base(self, tasks: Tensor, wordings: Tensor | None = None) -> Tensor:
        """Scores the unchanged network on each task, `[P]`."""
        return self.score(None, torch.zeros_like(tasks), tasks, wordings)

    @torch.no_grad()
    def _each(
        self,
        weights: Weights | None,
        row: Tensor,
        tasks: Tensor,
        wordings: Tensor | None,
        everything: bool,
    ) -> dict[str, Tensor]:
        suite, spec = self.suite, self.target.spec
        shows = suite.reads_description and wordings is not None
        shown = wordings if shows and wordings is not None else torch.zeros_like(tasks)
        pairs, inverse, counts = torch.stack([row, tasks, shown], 1).unique(
            dim=0, return_inverse=True, return_counts=True
        )
        parts: dict[str, list[Tensor]] = {}
        for part, count in zip(pairs.split(self.chunk), counts.split(self.chunk), strict=True):
            call: Any = self.target
            if weights is None:
                # Never read. One number, seen as many.
                own = spec.from_flat(torch.zeros(1, 1).expand(len(part), spec.numel))
                call = BaseCall(self.target)
            else:
                own = weights[part[:, 0]]
            further = (part[:, 2],) if shows else ()
            with memory_advice("evaluation", suite.memory_advice):
                if everything:
                    found = suite.metrics(call, own, part[:, 1], self.samples, *further)
                else:
                    values = suite.score(call, own, part[:, 1], self.samples, *further)
                    found = {"score": values}
            for name, value in found.items():
                parts.setdefault(name, []).append(value.cpu())
            if self.done is not None:
                self.done(int(count.sum()))
        return {name: torch.cat(values)[inverse] for name, values in parts.items()}


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


def shown(suite: TaskSuite, tasks: Sequence[int], texts: Sequence[str], unit: Tensor) -> Tensor:
    """The numbers of descriptions (`TaskSuite.wording`), `[P]`, of what `describe` returned."""
    numbers = [suite.wording(tasks[u], t) for t, u in zip(texts, unit.tolist(), strict=True)]
    return torch.tensor(numbers, dtype=torch.long)


def encode(generator: Generator, texts: list[str], chunk: int = 4096) -> Condition:
    """Encodes raw conditions under the encoder's own input name, without gradients.

    Encoders of several parts read them as descriptions.

    Raises:
        UsageError: The generator reads no descriptions.
    """
    name = generator.encoder.input_name
    if name == "demos":
        raise UsageError(
            "this generator is conditioned on demonstrations alone: say how many by --k, such as "
            "--k 1 4 16"
        )
    name = "text" if name == "fused" else name
    with torch.no_grad():
        parts = [
            generator.encode(**{name: texts[i : i + chunk]}) for i in range(0, len(texts), chunk)
        ]
    return Condition.cat(parts) if len(parts) > 1 else parts[0]


def readable(generator: Generator, texts: list[str]) -> list[str]:
    """The texts, cut at a word where the encoder does not take the whole of one.

    Raises:
        ConditionError: An encoder does not take a text for another reason than its length.
    """
    return [_readable(generator, text) for text in texts]


def _readable(generator: Generator, text: str) -> str:
    words = text.split()
    while True:
        try:
            encode(generator, [text])
        except ConditionError:
            if len(words) < 2:
                raise
            words = words[: int(0.9 * len(words))]
            text = " ".join(words)
        else:
            return text


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
        chunk: Most networks trained at a time.
        **options: Further arguments of `hypergen.zoo.train_weights`.

    Returns:
        Networks; of each task that has samples to train on at least one, or None if one of them
        would have to be trained in 0 steps.
    """
    wanted = tasks.unique()
    if known is not None:
        found = known.rows(wanted)
        have, wanted = found[found >= 0], wanted[found < 0]
    parts = [] if known is None or not len(have) else [(known.weights[have], known.tasks[have])]
    split = options.get("split", "train")
    wanted = wanted[[suite.has_samples(task, split) for task in wanted.tolist()]]
    if len(wanted) and steps < 1:
        return None
    wanted, sizes = suite.stack_sizes(wanted, options.get("samples", 32), chunk)
    for part in progress(wanted.split(sizes), desc="training oracles", unit="stack"):
        weights = train_weights(target, target.spec, suite, part, steps=steps, **options)
        parts.append((weights, part))
    if not parts:
        return None
    return Zoo(Weights.cat([w for w, _ in parts]), torch.cat([t for _, t in parts]))
