"""Demonstrations: a few solved examples of each of `B` tasks, with the loss of a target on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import UsageError
from hypergen._utils.seeding import generator as seeded
from hypergen.specs import Weights
from hypergen.zoo.tasks import TaskSuite

TargetLike = Callable[[Weights, Any], Any]


class Demos(ABC):
    """Demonstrations of `B` tasks, as many of each as there are.

    Attributes:
        counts: `[B]`, demonstrations of each task.
    """

    counts: Tensor

    @abstractmethod
    def losses(
        self, target: TargetLike, weights: Weights, tasks: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Losses of networks on demonstrations.

        Args:
            target: The frozen target.
            weights: `M` networks.
            tasks: `[M]`, whose demonstrations each network is asked, in `range(B)`.
            rows: `[M, S]`, which of them.

        Returns:
            Losses summed over what counts in each demonstration (tokens of the answer, or 1), and
            how much that is, `[M, S]` each.
        """

    def __len__(self) -> int:
        return len(self.counts)


class BatchDemos(Demos):
    """Demonstrations as tensors, for any target and loss.

    Args:
        inputs: What the target takes: a tensor `[B, S, …]`, or a mapping of such tensors.
        labels: `[B, S, …]`.
        loss: Takes the target's output `[N, …]` and labels `[N, …]`, returns the loss of each
            sample `[N]`; cross-entropy of logits and classes when not given.
        counts: `[B]`, how many of the `S` are there; all when not given.
    """

    def __init__(
        self,
        inputs: Tensor | Mapping[str, Tensor],
        labels: Tensor,
        loss: Callable[[Any, Tensor], Tensor] | None = None,
        counts: Tensor | None = None,
    ) -> None:
        self.inputs, self.labels = inputs, labels
        self.loss = loss or _cross_entropy
        full = torch.full((len(labels),), labels.shape[1])
        self.counts = full if counts is None else counts

    def losses(
        self, target: TargetLike, weights: Weights, tasks: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Demos.losses`."""

        def pick(tensor: Tensor) -> Tensor:
            at = tasks.to(tensor.device)[:, None], rows.to(tensor.device)
            return tensor[at].flatten(0, 1)

        given = self.inputs
        inputs = (
            {k: pick(v) for k, v in given.items()} if isinstance(given, Mapping) else pick(given)
        )
        each = self.loss(target(weights, inputs), pick(self.labels)).view(rows.shape)
        return each, torch.ones_like(each)


def _cross_entropy(output: Any, labels: Tensor) -> Tensor:
    return F.cross_entropy(getattr(output, "logits", output), labels, reduction="none")


def demos_of(
    suite: TaskSuite,
    tasks: Sequence[int] | Tensor,
    count: int,
    *,
    split: str = "train",
    seed: int = 0,
) -> Demos:
    """Draws demonstrations of a suite's tasks; a task's are the same whatever the others are.

    Args:
        suite: The tasks.
        tasks: `[B]` task numbers.
        count: Demonstrations of each; text tasks that have fewer give all.
        split: Split of the samples, not that of the scores.
        seed: Seed of the draw.

    Raises:
        UsageError: A task has no samples, or the suite's batches have no labels.
    """
    if count < 1:
        raise UsageError(f"{count} demonstrations: give at least 1")
    from hypergen.zoo.language.suite import TextSuite

    numbers = torch.as_tensor(tasks, dtype=torch.long)
    if isinstance(suite, TextSuite):
        from hypergen.zoo.language.demos import SuiteDemos

        return SuiteDemos(suite, numbers, count, split, seed)
    batches = [
        suite.sample(task[None], count, seeded("demos", seed, suite.names[int(task)]), split)
        for task in numbers
    ]
    if not all(isinstance(b.get("labels"), Tensor) for b in batches):
        raise UsageError(f"the samples of {type(suite).__name__} have no labels: use BatchDemos")
    inputs = [b["inputs"] for b in batches]
    if isinstance(inputs[0], Mapping):
        stacked: Any = {k: torch.stack([i[k] for i in inputs]) for k in inputs[0]}
    else:
        stacked = torch.stack(inputs)
    return BatchDemos(stacked, torch.stack([b["labels"] for b in batches]))
