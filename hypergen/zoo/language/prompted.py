"""PromptedSuite: how the tasks of a suite become tokens, piece by piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import LanguageModel
from hypergen.zoo.language.prompts import Prompt
from hypergen.zoo.language.suite import TextSuite
from hypergen.zoo.language.tasks import TextTask
from hypergen.zoo.language.tokens import Ragged, content_hash, encode, join


class PromptedSuite(TextSuite):
    """Text tasks as prompts: a head (description, examples), the input, a tail, and the answer.

    Each piece is tokenised once, for all samples that hold it, and sequences are gathered from the
    tables of pieces.

    Args:
        model: A language model.
        tasks: See `TextSuite`.
        prompt: How instances become text; a `Prompt`, or its arguments.
        pack: Whether a description counts once for all samples of a network, see `mean_lengths`.
        **options: Those of `TextSuite`.
    """

    def __init__(
        self,
        model: str | LanguageModel,
        tasks: str | Path | Sequence[TextTask] | None,
        *,
        prompt: Prompt | Mapping[str, Any] | None = None,
        pack: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, tasks, **options)
        self.prompt = prompt if isinstance(prompt, Prompt) else Prompt(**(prompt or {}))
        self.pack = pack
        self._config |= {"prompt": self.prompt.to_dict(), "pack": pack}
        tokenizer = self.language_model.tokenizer
        self.end: int | None = tokenizer.eos_token_id
        pad = tokenizer.pad_token_id
        self.pad = int(next(t for t in (pad, self.end, 0) if t is not None))
        self._heads: tuple[Ragged, Tensor] | None = None
        self._tables: dict[str, tuple[Ragged, Ragged, Tensor]] = {}
        self._lines: tuple[Tensor, Tensor] | None = None
        self.tail = Ragged.of(encode(tokenizer, [self.prompt.tail(tokenizer)]))

    def heads(self) -> tuple[Ragged, Tensor]:
        """Tokens before the input: a row for each description, and each task's first row `[T]`.

        The last row is that of a prompt without a description, the wording -1 of every task.
        """
        if self._heads is None:
            tokenizer, prompt = self.language_model.tokenizer, self.prompt
            start = start_tokens(tokenizer) if prompt.template == "plain" else []
            per_task = [
                t.descriptions if prompt.description else t.descriptions[:1] for t in self.tasks
            ]
            texts = [
                prompt.head(t, d, tokenizer)
                for t, ds in zip(self.tasks, per_task, strict=True)
                for d in ds
            ]
            # Behind an empty description, the input begins as it does behind any other.
            texts.append(prompt.frame(tokenizer)[0])
            rows = [[*start, *row] for row in encode(tokenizer, texts)]
            counts = torch.tensor([len(ds) for ds in per_task])
            self._heads = Ragged.of(rows), counts.cumsum(0) - counts
        return self._heads

    def heads_of(self, task: int) -> int:
        """How many rows of `heads` a task has."""
        return len(self.tasks[task].descriptions) if self.prompt.description else 1

    def table(self, split: str) -> tuple[Ragged, Ragged, Tensor]:
        """Inputs and first answers of all instances of a split, and each task's first row `[T]`."""
        if split not in self._tables:
            bodies, answers = [], []
            for task in self.tasks:
                rows = task.instances.get(split, ())
                # By the texts and not by the task: variants of a task share its inputs.
                inputs = [self.prompt.body(i) for i in rows]
                bodies.append(self._tokens.table(inputs, content_hash(inputs)))
                outputs = [self.prompt.answer(i.outputs[0]) for i in rows]
                answers.append(self._tokens.table(outputs, content_hash(outputs)))
            counts = self.counts(split)
            self._tables[split] = (
                Ragged.cat(bodies),
                self.ended(Ragged.cat(answers)),
                counts.cumsum(0) - counts,
            )
        return self._tables[split]

    def check_room(self, split: str = "train") -> None:
        """Checks that the longest description and answer of every task leave room for an input.

        Raises:
            UsageError: Those of a task do not; names it and the length that they need.
        """
        longest = torch.zeros(2, len(self.tasks), dtype=torch.long)
        heads, first = self.heads()
        _, answers, start = self.table(split)
        for row, table, at in zip(longest, (heads, answers), (first, start), strict=True):
            owner = torch.searchsorted(at, torch.arange(len(table)), right=True) - 1
            row.scatter_reduce_(0, owner, table.lengths, "amax")
        needed = longest.sum(0) + self.tail.lengths[0] + 1
        if bool((needed > self.max_length).any()):
            task = int(needed.argmax())
            raise UsageError(
                f"task {self.names[task]!r} needs {int(needed[task])} tokens for its longest "
                f"description, examples and answer alone: raise max_length={self.max_length}, or "
                "lower examples"
            )

    def mean_lengths(self, samples: int = 1, split: str = "train") -> Tensor:
        """Mean tokens of `samples` training samples of each task, `[T]`, as they are put together.

        A packed description counts once, otherwise once for each sample.
        """
        heads, first = self.heads()
        bodies, answers, start = self.table(split)

        def mean(table: Ragged, at: Tensor, rows: int) -> Tensor:
            stops = torch.cat([at[1:], torch.tensor([rows])])
            total = torch.cat([torch.zeros(1), table.lengths.cumsum(0)])
            return (total[stops] - total[at]) / (stops - at).clamp(min=1)

        own = mean(bodies, start, len(bodies)) + mean(answers, start, len(answers))
        own += self.tail.lengths[0]
        head = mean(heads, first, len(heads) - 1)  # the last one is nobody's
        return own * samples + head * (1 if self.pack else samples)

    def ended(self, table: Ragged) -> Ragged:
        """Appends the token that ends an answer to every row."""
        if self.end is None:
            return table
        count = len(table)
        end = Ragged.of([[self.end]])
        rows = torch.arange(count)
        ids, bounds = join([(table, rows), (end, torch.zeros_like(rows))], 0)
        kept = torch.arange(ids.shape[1]) < bounds[-1][:, None]
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), bounds[-1].cumsum(0)])
        return Ragged(ids[kept], offsets)

    def sequences(
        self,
        tasks: Tensor,
        rows: Tensor,
        split: str,
        answers: tuple[Ragged, Tensor] | None,
        wordings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts with what follows them, padded on the right.

        Args:
            tasks: `[B]` task numbers.
            rows: `[B, S]` instances.
            split: Split of the instances.
            answers: Table and rows `[B · S]` of what follows; nothing when not given.
            wordings: `[B]` or `[B, S]`, number of the description in the prompt; the first when
                not given, none (and no examples) where it is -1.

        Returns:
            Tokens `[N, L]`, length of the prompt `[N]` and of the whole `[N]`.

        Raises:
            UsageError: A description leaves no room for the input.
        """
        bodies, _, first = self.table(split)
        heads, _ = self.heads()
        number = (first[tasks][:, None] + rows).flatten()
        head = self.head_rows(tasks, wordings).expand_as(rows).flatten()
        parts = [(heads, head), (bodies, number), (self.tail, torch.zeros_like(number))]
        if answers is not None:
            parts.append(answers)
        others = (parts[0], *parts[2:])
        fixed = torch.stack([table.lengths[r] for table, r in others]).sum(0)
        cut = self.cut(bodies.lengths[number], fixed, tasks.repeat_interleave(rows.shape[1]))
        ids, bounds = join(parts, self.pad, {1: cut})
        return ids, bounds[3], bounds[-1]

    def head_rows(self, tasks: Tensor, wordings: Tensor | None) -> Tensor:
        """Rows of `heads` for `[B]` tasks and wordings `[B]` or `[B, S]`: `[B, 1]` or `[B, S]`."""
        heads, first = self.heads()
        head = first[tasks][:, None]
        if wordings is None or not self.prompt.description:
            return head
        wordings = wordings[:, None] if wordings.dim() == 1 else wordings
        return torch.where(wordings < 0, len(heads) - 1, head + wordings)

    def cut(self, body: Tensor, fixed: Tensor, tasks: Tensor) -> Tensor:
        """How many tokens of each input `[N]` do not fit beside the `fixed` ones.

        Raises:
            UsageError: Nothing of an input fits; names the task.
        """
        room = self.max_length - fixed
        if bool((room < 1).any()):
            task = int(tasks[(room < 1).nonzero()[0]])
            raise UsageError(
                f"task {self.names[task]!r}: description, examples and answer leave no room for "
                f"the input within max_length={self.max_length}: raise it, or lower examples"
            )
        return (body - room).clamp(min=0)

    def line_tokens(self) -> tuple[Tensor, Tensor]:
        """Of each token `[V]`: whether its first line has a text, and whether it ends a line."""
        if self._lines is None:
            tokenizer = self.language_model.tokenizer
            network: Any = self.network
            known = len(tokenizer)
            size = max(known, len(network.get_output_embeddings().weight))
            texts = tokenizer.batch_decode([[i] for i in range(known)]) + [""] * (size - known)
            self._lines = (
                torch.tensor([bool(text.partition("\n")[0].strip()) for text in texts]),
                torch.tensor(["\n" in text for text in texts]),
            )
        return self._lines


def start_tokens(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a text (a BOS token, or nothing)."""
    plain, full = encode(tokenizer, ["a"]), encode(tokenizer, ["a"], special=True)
    return full[0][: full[0].index(plain[0][0])] if plain[0][0] in full[0] else []
