"""Trained weights with the tasks they belong to, as baselines read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hypergen._utils.errors import RunError, UsageError
from hypergen.specs import Weights
from hypergen.zoo import TaskSuite


class Zoo:
    """Weights trained for one task each.

    Args:
        weights: `M` networks.
        tasks: `[M]` task numbers; a task may have several networks.

    Raises:
        UsageError: The two have different lengths, or there are none.
    """

    def __init__(self, weights: Weights, tasks: Sequence[int] | Tensor) -> None:
        self.weights = weights
        self.tasks = torch.as_tensor(tasks, dtype=torch.long)
        if self.tasks.shape != (len(weights),) or not len(weights):
            raise UsageError(f"a zoo of {len(weights)} networks has {len(self.tasks)} task numbers")

    def __len__(self) -> int:
        return len(self.weights)

    def rows(self, tasks: Tensor) -> Tensor:
        """`[B]`, the first network of each task; -1 where there is none."""
        order = self.tasks.argsort(stable=True)
        place = torch.searchsorted(self.tasks[order], tasks).clamp(max=len(self) - 1)
        found = order[place]
        return torch.where(self.tasks[found] == tasks, found, -1)

    def mean(self) -> Weights:
        """The mean over networks, entry by entry; batch size 1."""
        return self.weights.spec.from_flat(self.weights.flat().mean(0, keepdim=True))

    def save(self, path: str | Path, suite: TaskSuite) -> None:
        """Writes one safetensors file; tasks are stored by name."""
        names = [suite.names[int(task)] for task in self.tasks]
        weights = self.weights.detach()
        weights.provenance = {**self.weights.provenance, "tasks": names}
        weights.save(path)

    @staticmethod
    def load(path: str | Path, suite: TaskSuite) -> Zoo:
        """Reads what `save` wrote.

        Raises:
            RunError: The file is missing or damaged, or names a task that the suite lacks.
        """
        weights = Weights.load(path)
        number = {name: i for i, name in enumerate(suite.names)}
        names = weights.provenance.get("tasks")
        if not isinstance(names, list) or len(names) != len(weights):
            raise RunError(f"{path} does not say which tasks its {len(weights)} networks belong to")
        for name in names:
            if name not in number:
                raise RunError(
                    f"{path} holds weights of the task {name!r}, which is not in the suite"
                )
        return Zoo(weights, [number[name] for name in names])
