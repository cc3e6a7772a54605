"""Descriptions encoded once, and the loaders that cut batches out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.library import Experts
from hypergen.specs import Weights
from hypergen.training.embeddings import cached_condition

Batch = dict[str, Any]


class WordingBank:
    """All descriptions of some tasks in one table, so that a batch is one gather.

    Equal descriptions share a row. An encoder that is itself trained cannot be run ahead: then the
    raw descriptions are kept, and `condition` is None.

    Args:
        encoder: Encodes the descriptions; None to keep them as they are.
        descriptions: For each task of a suite, its descriptions.
        tasks: Numbers of the tasks to keep; those without a description are left out.
        cache: Folder of encoded descriptions, see `cached_condition`.

    Raises:
        ConditionError: A description cannot be encoded.
    """

    def __init__(
        self,
        encoder: ConditionEncoder | None,
        descriptions: Sequence[Sequence[Any]],
        tasks: Sequence[int],
        cache: str | Path | None = None,
    ) -> None:
        kept = [task for task in tasks if len(descriptions[task])]
        rows: dict[str, int] = {}
        self.raw: list[Any] = []
        index: list[int] = []
        for task in kept:
            for text in descriptions[task]:
                row = rows.setdefault(repr(text), len(rows))
                if row == len(self.raw):
                    self.raw.append(text)
                index.append(row)
        self.tasks = torch.tensor(kept, dtype=torch.long)
        self._row = torch.tensor(index, dtype=torch.long)
        self._count = torch.tensor([len(descriptions[task]) for task in kept], dtype=torch.long)
        self._start = self._count.cumsum(0) - self._count
        self.condition: Condition | None = None
        trained = encoder is None or any(p.requires_grad for p in encoder.parameters())
        if self.raw and encoder is not None and not trained:
            with torch.no_grad():
                self.condition = cached_condition(
                    encoder, self.raw, lambda: encoder(_columns(self.raw)).detach(), cache
                )
            self._length = self.condition.mask.sum(1).cpu()

    def __len__(self) -> int:
        return len(self.tasks)

    def to(self, device: torch.device) -> WordingBank:
        """Moves the encoded descriptions; what chooses among them stays on the CPU."""
        if self.condition is not None:
            self.condition = self.condition.to(device)
        return self

    def pick(self, position: Tensor, generator: torch.Generator) -> Tensor:
        """`[B]` positions in `tasks` → `[B]` rows, one random description of each."""
        draw = torch.rand(len(position), generator=generator, dtype=torch.float64)
        return self._row[self._start[position] + (draw * self._count[position]).long()]

    def first(self, position: Tensor) -> Tensor:
        """`[B]` positions in `tasks` → `[B]` rows, the first description of each."""
        return self._row[self._start[position]]

    def used(self, rows: Tensor) -> Tensor | None:
        """Samples of its task that each of `[B]` rows tells, `[B, K]` (-1: none); None here."""
        return None

    def rows_of(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Every description of `[B]` positions in `tasks`.

        Returns:
            `[P]` rows, and `[P]`, which of the B each belongs to.
        """
        count = self._count[position]
        owner = torch.arange(len(position)).repeat_interleave(count)
        within = torch.arange(len(owner)) - (count.cumsum(0) - count)[owner]
        return self._row[self._start[position][owner] + within], owner

    def experts(self, weights: Weights, tasks: Tensor) -> Experts:
        """Trained weights with the descriptions of their tasks.

        Args:
            weights: `M` networks.
            tasks: `[M]` task numbers; networks of tasks that are not here are left out.

        Raises:
            UsageError: The encoder is trained, or no network's task is here.
        """
        if self.condition is None:
            raise UsageError("experts are compared by their descriptions: freeze the encoder")
        place = {task: i for i, task in enumerate(self.tasks.tolist())}
        kept = [i for i, task in enumerate(tasks.tolist()) if task in place]
        if not kept:
            raise UsageError("no network of the zoo has a task with a description")
        position = torch.tensor([place[task] for task in tasks[kept].tolist()])
        rows, owner = self.rows_of(position)
        pooled = self.condition.pooled[rows.to(self.condition.pooled.device)]
        names = [str(self.raw[row]) for row in self.first(position).tolist()]
        return Experts(weights[kept], pooled, owner, tasks[kept].cpu()[owner], names)

    def batch(self, rows: Tensor) -> Batch:
        """`condition` (or the `raw` descriptions) of `[B]` rows, cut to the longest of them."""
        if self.condition is None:
            return {"raw": _columns([self.raw[row] for row in rows.tolist()])}
        # Lengths are on the CPU: cutting a batch never waits for an accelerator.
        length = int(self._length[rows].max())
        at = rows.to(self.condition.tokens.device)
        return {
            "condition": Condition(
                self.condition.tokens[at, :length],
                self.condition.mask[at, :length],
                self.condition.pooled[at],
                None if self.condition.signals is None else self.condition.signals[at],
            )
        }


def _columns(raw: list[Any]) -> Any:
    """What an encoder takes: a list, or, of descriptions with named parts, a list for each name."""
    if raw and isinstance(raw[0], Mapping):
        return {name: [row[name] for row in raw] for name in raw[0]}
    return raw


class StepLoader:
    """Endless batches in epochs of `length`; batch i depends on i alone.

    Its state is the number of batches that it gave, so that a checkpoint in the middle of an epoch
    goes on with the next batch.

    Args:
        draw: Makes batch i.
        length: Batches of an epoch.
    """

    def __init__(self, draw: Callable[[int], Batch], length: int) -> None:
        if length < 1:
            raise UsageError(f"an epoch needs at least one batch, not {length}")
        self.draw, self.length, self.position = draw, length, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        while True:
            batch = self.draw(self.position)
            self.position += 1
            yield batch
            if self.position % self.length == 0:
                return

    def state_dict(self) -> dict[str, int]:
        """Number of batches given so far."""
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Goes on after the batches that were given."""
        self.position = int(state["position"])


class ListLoader:
    """The same batches each time, made when they are asked for.

    Args:
        draws: Makes one batch each.
    """

    def __init__(self, draws: Sequence[Callable[[], Batch]]) -> None:
        self.draws = list(draws)

    def __len__(self) -> int:
        return len(self.draws)

    def __iter__(self) -> Iterator[Batch]:
        return (draw() for draw in self.draws)
