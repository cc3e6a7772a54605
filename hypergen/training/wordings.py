"""Descriptions drawn for training: several of a task at once, and at times none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen.conditions import ConditionEncoder
from hypergen.training.bank import WordingBank


class VariedBank(WordingBank):
    """A bank whose draws hold several wordings of each task, or one that says nothing.

    Args:
        encoder: Encodes the descriptions.
        descriptions: For each task of a suite, its descriptions.
        tasks: Numbers of the tasks to keep.
        per_task: Networks in a row that belong to one task; they get different wordings, as far as
            the task has so many.
        neutral: A description that says nothing about the task.
        dropout: Share of the tasks that are described by it, in all their networks.
        cache: Folder of encoded descriptions.
    """

    def __init__(
        self,
        encoder: ConditionEncoder,
        descriptions: Sequence[Sequence[Any]],
        tasks: Sequence[int],
        *,
        per_task: int = 1,
        neutral: str = "Do the task.",
        dropout: float = 0.0,
        cache: str | Path | None = None,
    ) -> None:
        # The neutral wording is that of one more task, which is never drawn.
        super().__init__(encoder, [*descriptions, [neutral]], [*tasks, len(descriptions)], cache)
        self.tasks = self.tasks[:-1]
        self.neutral = int(self._row[-1])
        self.per_task, self.dropout = per_task, dropout

    def pick(self, position: Tensor, generator: torch.Generator) -> Tensor:
        """`[B]` positions in `tasks`, in blocks of `per_task` → `[B]` rows."""
        first = position[:: self.per_task]
        count = self._count[first][:, None]
        # A random order of each task's wordings, those that it does not have at the end.
        keys = torch.rand(len(first), int(self._count.max()), generator=generator)
        keys[torch.arange(keys.shape[1]) >= count] = 2.0
        order = keys.argsort(1)
        member = torch.arange(self.per_task) % count
        rows = self._row[self._start[first][:, None] + order.gather(1, member)]
        dropped = torch.rand(len(first), 1, generator=generator) < self.dropout
        return torch.where(dropped, self.neutral, rows).flatten()
