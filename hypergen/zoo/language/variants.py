"""A suite asked in other words: without its description, or with demonstrations."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from hypergen.zoo.language.causal import CausalSuite
from hypergen.zoo.language.tokens import Ragged, encode

SHOT_TOKENS = 512  # most tokens of demonstrations, beside what `max_length` leaves for the rest

Own = TypeVar("Own", bound="_Variant")


class _Variant(CausalSuite):
    """Shares everything with a suite but the prompt."""

    @classmethod
    def of(cls: type[Own], suite: CausalSuite) -> Own:
        """A variant of a suite: same model, same tasks, same tokens."""
        made = cls.__new__(cls)
        made.__dict__.update(vars(suite))
        made._heads, made._tables = None, dict(suite._tables)
        return made


class WithoutDescription(_Variant):
    """The suite's prompt where nothing is said: as training asks when it drops descriptions."""

    reads_description = False

    def head_rows(self, tasks: Tensor, wordings: Tensor | None) -> Tensor:
        """The row of `heads` without a description, `[B, 1]`."""
        return super().head_rows(tasks, torch.full_like(tasks, -1))


class InContext(_Variant):
    """The suite's prompt with demonstrations behind the description.

    They are the task's own `examples`; fewer where a task has fewer, or where their tokens would
    not fit. They have room of their own: an input is cut no more than without them.
    """

    shots = 3

    @classmethod
    def with_shots(cls, suite: CausalSuite, shots: int, tokens: int | None = None) -> InContext:
        """A variant with up to `shots` demonstrations of each task.

        Args:
            suite: The suite.
            shots: Most demonstrations.
            tokens: Most tokens of them, beside what `max_length` leaves for the rest;
                `SHOT_TOKENS` when not given.
        """
        made = cls.of(suite)
        made.shots = max(shots, suite.prompt.examples)
        room = suite.language_model.max_length - suite.max_length
        wanted = SHOT_TOKENS if tokens is None else tokens
        made.max_length = suite.max_length + max(0, min(wanted, room))
        made._room = made.max_length - suite.max_length
        return made

    _room = 0

    def counts_shown(self) -> list[int]:
        """How many demonstrations of each task fit."""
        tokenizer = self.language_model.tokenizer
        shown = [task.examples[: self.shots] for task in self.tasks]
        texts = [f"\n\nInput: {e.input}\nOutput: {e.outputs[0]}" for row in shown for e in row]
        lengths = iter([len(row) for row in encode(tokenizer, texts)])
        counts = []
        for task, row in zip(self.tasks, shown, strict=True):
            used = torch.tensor([0, *(next(lengths) for _ in row)]).cumsum(0)
            # Those that the suite's own prompt shows have their room in it already.
            free = used - used[min(self.prompt.examples, len(task.examples))]
            counts.append(int((free <= self._room).sum()) - 1)
        return counts

    def heads(self) -> tuple[Ragged, Tensor]:
        """As `CausalSuite.heads`, with the demonstrations."""
        if self._heads is None:
            plain, first = super().heads()
            tokenizer = self.language_model.tokenizer
            texts = [
                replace(self.prompt, examples=count).head(task, description, tokenizer)
                for task, count in zip(self.tasks, self.counts_shown(), strict=True)
                for description in task.descriptions
            ]
            # What the tokenizer puts before a text stands before these too.
            last = len(plain) - 1
            empty = encode(tokenizer, [self.prompt.frame(tokenizer)[0]])[0]
            begin = plain.values[int(plain.offsets[last]) :].tolist()
            start = begin[: len(begin) - len(empty)]
            rows = [[*start, *row] for row in encode(tokenizer, texts)]
            self._heads = Ragged.of([*rows, begin]), first
        return self._heads
