"""Demonstrations drawn for training, beside a description or alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hypergen._utils.errors import UsageError
from hypergen.conditions import Condition, ConditionEncoder, DemoEncoder
from hypergen.conditions.demos import Pair, texts_of
from hypergen.training.bank import Batch, WordingBank
from hypergen.training.embeddings import cached_condition
from hypergen.zoo.language.few_shot import demo_rows
from hypergen.zoo.language.tasks import TextTask


class DemoBank(WordingBank):
    """A bank whose rows hold a description and demonstrations, either of which may lack.

    A row is one of a tensor `[B, 2 + K]`: the task's position, the description (-1: none), and the
    training instances that are shown (-1: none).

    Args:
        encoder: The frozen part of a `DemoEncoder` in it reads all demonstrations here, once.
        descriptions: For each task of a suite, its descriptions.
        tasks: Numbers of the tasks to keep.
        of: The tasks of the suite.
        least: Fewest demonstrations of a draw.
        most: Most of them; fewer where a task has fewer, and one instance at least is left.
        shown: Demonstrations of `first`.
        pool: Most instances of a task that serve as demonstrations.
        describe: Whether rows have descriptions; tasks without demonstrations are left out if not.
        dropout: Share of the draws without description; those without demonstrations keep it.
        seed: Seed of the choice of instances.
        cache: Folder of embeddings.

    Raises:
        UsageError: No task is left.
    """

    def __init__(
        self,
        encoder: ConditionEncoder,
        descriptions: Sequence[Sequence[Any]],
        tasks: Sequence[int],
        of: Sequence[TextTask],
        *,
        least: int = 0,
        most: int = 16,
        shown: int = 4,
        pool: int = 64,
        describe: bool = True,
        dropout: float = 0.0,
        seed: int = 0,
        cache: str | Path | None = None,
    ) -> None:
        pools = {task: demo_rows(of[task], seed, pool) for task in tasks}
        kept = [task for task in tasks if describe or pools[task]]
        if not kept:
            raise UsageError("no task has instances that could serve as demonstrations")
        super().__init__(None, descriptions, kept)
        self.of, self.describe, self.dropout = of, describe, dropout
        self.least, self.most, self.shown = least, most, shown
        numbers = self.tasks.tolist()
        self._pool = pad_sequence(
            [torch.tensor(pools[task], dtype=torch.long) for task in numbers],
            batch_first=True,
            padding_value=-1,
        )
        self._size = (self._pool >= 0).sum(1)
        counts = torch.tensor([len(of[task].instances.get("train", ())) for task in numbers])
        self._most = self._size.minimum((counts - 1).clamp(min=0)).clamp(max=most)
        pairs = [self._pair(task, row) for task in numbers for row in pools[task]]
        for reader in encoder.modules():
            if isinstance(reader, DemoEncoder):
                self._read(reader, list(dict.fromkeys(texts_of(pairs))), cache)

    @staticmethod
    def _read(reader: DemoEncoder, texts: list[str], cache: str | Path | None) -> None:
        """Embeds all texts ahead, in full batches, and keeps them in the encoder."""
        if not texts:
            return
        found = cached_condition(
            reader.encoder,
            texts,
            lambda: Condition.from_tokens(reader.embeddings(texts)[:, None]),
            cache,
        )
        reader.remember(dict(zip(texts, found.pooled, strict=True)))

    def _pair(self, task: int, row: int) -> Pair:
        instance = self.of[task].instances["train"][row]
        return instance.input.strip(), instance.outputs[0].strip()

    def pick(self, position: Tensor, generator: torch.Generator) -> Tensor:
        """`[B]` positions in `tasks` → `[B, 2 + most]` rows, drawn anew each time."""
        text = super().pick(position, generator)
        span = self.most - self.least + 1
        wanted = self.least + (torch.rand(len(position), generator=generator) * span).long()
        wanted = wanted.minimum(self._most[position])
        # A random order of each pool, what it does not have at the end.
        pool = self._pool[position]
        keys = torch.rand(pool.shape, generator=generator).masked_fill(pool < 0, 2.0)
        demos = self._first(pool.gather(1, keys.argsort(1)), wanted, self.most)
        dropped = torch.rand(len(position), generator=generator) < self.dropout
        return self._rows(position, text.masked_fill(dropped & (wanted > 0), -1), demos)

    def first(self, position: Tensor) -> Tensor:
        """The first description and the first `shown` demonstrations of `[B]` positions."""
        wanted = self._size[position].clamp(max=self.shown)
        demos = self._first(self._pool[position], wanted, self.shown)
        return self._rows(position, super().first(position), demos)

    def _rows(self, position: Tensor, text: Tensor, demos: Tensor) -> Tensor:
        text = text if self.describe else torch.full_like(text, -1)
        # Sorted, so that equal sets are equal rows.
        return torch.cat([position[:, None], text[:, None], demos.sort(1).values], 1)

    @staticmethod
    def _first(pool: Tensor, wanted: Tensor, width: int) -> Tensor:
        """The first `wanted` `[B]` of each row of `[B, P]`, `[B, ≤ width]`; then -1."""
        pool = pool[:, :width]
        return pool.masked_fill(torch.arange(pool.shape[1]) >= wanted[:, None], -1)

    def used(self, rows: Tensor) -> Tensor:
        """The training instances that are shown, `[B, K]` (-1: none)."""
        return rows[:, 2:]

    def batch(self, rows: Tensor) -> Batch:
        """The `raw` descriptions and demonstrations of `[B, 2 + K]` rows."""
        texts, demos = [], []
        for position, text, *shown in rows.tolist():
            task = int(self.tasks[position])
            demos.append([self._pair(task, row) for row in shown if row >= 0])
            texts.append(self.raw[text] if text >= 0 else None)
        return {"raw": {"text": texts, "demos": demos} if self.describe else demos}
