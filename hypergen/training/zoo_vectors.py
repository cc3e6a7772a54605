"""Batches of stored checkpoints and the class vectors (or other numbers) of their tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hypergen._utils.errors import UsageError
from hypergen.conditions import ConditionEncoder, VectorEncoder
from hypergen.training.zoo import ZooDataModule
from hypergen.zoo.store import Zoo


class ZooVectorsDataModule(ZooDataModule):
    """Checkpoints of a zoo, each with numbers that say its task, in place of a description.

    For tasks that are sets of classes, the vector has one bit a class: 1 where the class belongs to
    the set (RPG's condition for unseen tasks, Wang et al., 2025, arXiv:2501.11587). Splits by task
    keep families together, so that the complement of a held-out set is held out too.

    Args:
        path: The folder of the zoo.
        key: What of a task's metadata is the vector: a list of names, which becomes bits over all
            names that any task of the zoo has, or a list of numbers.
        dim: Width of the encoder's tokens.
        **options: As of `ZooDataModule`.

    Raises:
        UsageError: No task has the key, or tasks have vectors of different lengths; names the task.
    """

    def __init__(self, path: str, key: str = "classes", dim: int = 64, **options: Any) -> None:
        super().__init__(path, encoder="hashing", **options)
        self.key, self.dim = key, dim

    @property
    def vectors(self) -> dict[str, tuple[float, ...]]:
        """Task → its numbers, of the tasks that have any."""
        if "vectors" not in self._made:
            zoo = Zoo(self.path)
            values = {
                name: task.metadata[self.key]
                for name, task in zoo.tasks.items()
                if task.metadata.get(self.key)
            }
            if not values:
                raise UsageError(f"{self.path} has no task with {self.key!r} in its metadata")
            self._made["vectors"], self._made["names"] = _vectors(values, self.key)
        found: dict[str, tuple[float, ...]] = self._made["vectors"]
        return found

    @property
    def names(self) -> list[str]:
        """What the components are called."""
        _ = self.vectors
        names: list[str] = self._made["names"]
        return names

    @property
    def encoder(self) -> ConditionEncoder:
        """What encodes the vectors; it knows the training split's statistics."""
        if "encoder" not in self._made:
            made = VectorEncoder(len(self.names), self.dim, self.names)
            trained = sorted({row.task for row in self.splits["train"].rows})
            made.fit(torch.tensor([self.vectors[task] for task in trained]))
            self._made["encoder"] = made
        encoder: ConditionEncoder = self._made["encoder"]
        return encoder

    def _kind(self) -> str:
        return "vector"

    def _settings(self) -> dict[str, Any]:
        conditions = {task: list(vector) for task, vector in self.vectors.items()}
        return {**super()._settings(), "conditions": conditions}

    def _descriptions(self, zoo: Zoo, task: str) -> tuple[tuple[float, ...], ...]:
        return (self.vectors[task],) if task in self.vectors else ()


def _vectors(values: Mapping[str, Any], key: str) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    """Task → numbers, and the names of the components."""
    first = next(iter(values.values()))
    if isinstance(first[0], str):
        names = sorted({name for value in values.values() for name in value})
        bits = {t: tuple(float(n in value) for n in names) for t, value in values.items()}
        return bits, names
    for task, value in values.items():
        if len(value) != len(first) or not all(isinstance(v, (int, float)) for v in value):
            raise UsageError(
                f"{key!r} of task {task!r} is no list of {len(first)} numbers, as it is of others"
            )
    numbers = {task: tuple(float(v) for v in value) for task, value in values.items()}
    return numbers, [f"{key}[{k}]" for k in range(len(first))]
