"""SentenceSuite: text tasks for a sentence encoder, answered by the nearest text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import LanguageModel
from hypergen.specs import Weights
from hypergen.zoo.language.decoding import is_right
from hypergen.zoo.language.suite import TargetLike, TextSuite
from hypergen.zoo.language.tasks import TextTask
from hypergen.zoo.language.tokens import Ragged, encode, join


class SentenceSuite(TextSuite):
    """Tasks whose input a frozen sentence encoder places nearest to the right answer.

    The input's embedding (mean of the last hidden states, normalised; Reimers and Gurevych,
    "Sentence-BERT", EMNLP 2019, arXiv:1908.10084) comes from the adapted network, those of the
    possible answers from the unchanged one. Cosines over a temperature are the logits. There is no
    head, so the adapter is all that is learned, and the base's own score is its zero-shot one.

    Args:
        model: An encoder.
        tasks: See `TextSuite`; every instance must have choices (`TextTask.choices`).
        temperature: What cosines are divided by.
        max_length: Most tokens of an input.
        **options: Those of `TextSuite`.

    Raises:
        UsageError: A task has open outputs; names it (`answerable` picks the others).
    """

    kind = "encoder"

    def __init__(
        self,
        model: str | LanguageModel,
        tasks: str | Path | Sequence[TextTask] | None,
        *,
        temperature: float = 0.05,
        max_length: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(model, tasks, max_length=max_length, **options)
        if temperature <= 0:
            raise UsageError(f"temperature is {temperature}: it must be above 0")
        for task in self.tasks:
            if not answerable(task):
                raise UsageError(
                    f"task {task.name!r} has open outputs: a sentence encoder needs a closed set "
                    "of labels, or inputs that list the choices"
                )
        self.temperature = temperature
        self._config["temperature"] = temperature
        self._tables: dict[str, tuple[Ragged, Ragged, Tensor, Tensor]] = {}
        self._answers: tuple[dict[str, int], Tensor] | None = None

    # -- tables --------------------------------------------------------------------------------

    def answers(self) -> tuple[dict[str, int], Tensor]:
        """Every possible answer of the tasks → row, and their embeddings by the base `[U, D]`."""
        if self._answers is None:
            texts = dict.fromkeys(
                text
                for task in self.tasks
                for rows in task.instances.values()
                for instance in rows
                for text in task.choices(instance)
            )
            self._answers = {text: i for i, text in enumerate(texts)}, self.embed(list(texts))
        return self._answers

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings by the unchanged base, `[N, D]`, of length 1."""
        rows = encode(self.language_model.tokenizer, texts, True, self.max_length)
        table = Ragged.of(rows)
        order = table.lengths.argsort(stable=True)
        parts = []
        for index in order.split(self.eval_batch):
            inputs = self.to_device(self._inputs(table, index))
            output = self.language_model.model(**inputs)
            parts.append(mean_embedding(output, inputs["attention_mask"]).cpu())
        return torch.cat(parts)[order.argsort()]

    def table(self, split: str) -> tuple[Ragged, Ragged, Tensor, Tensor]:
        """Of a split: input tokens, rows of the choices, number of the right one, first rows.

        The right choice is that of the first output, as training takes it.
        """
        if split not in self._tables:
            known, _ = self.answers()
            inputs, choices, right = [], [], []
            for task in self.tasks:
                rows = task.instances.get(split, ())
                inputs.append(
                    self._tokens.table(
                        (i.input for i in rows),
                        "sentence",
                        task.hash,
                        split,
                        special=True,
                        max_length=self.max_length,
                    )
                )
                for instance in rows:
                    options = task.choices(instance)
                    choices.append([known[text] for text in options])
                    right.append(options.index(instance.outputs[0]))
            counts = self.counts(split)
            self._tables[split] = (
                Ragged.cat(inputs),
                Ragged.of(choices),
                torch.tensor(right),
                counts.cumsum(0) - counts,
            )
        return self._tables[split]

    def _inputs(self, table: Ragged, rows: Tensor) -> dict[str, Tensor]:
        pad = self.language_model.tokenizer.pad_token_id or 0
        ids, bounds = join([(table, rows)], pad)
        mask = torch.arange(ids.shape[1]) < bounds[-1][:, None]
        return {"input_ids": ids, "attention_mask": mask.long()}

    # -- TextSuite -----------------------------------------------------------------------------

    def batch(self, tasks: Tensor, rows: Tensor, split: str = "train") -> dict[str, Any]:
        """Inputs, and the embeddings of their choices; see `TextSuite.batch`."""
        inputs, choices, right, first = self.table(split)
        number = (first[tasks][:, None] + rows).flatten()
        index, bounds = join([(choices, number)], 0)
        return {
            "inputs": self.to_device(self._inputs(inputs, number)),
            **self.to_device(
                {
                    "choices": self.answers()[1][index],
                    "is_choice": torch.arange(index.shape[1]) < bounds[-1][:, None],
                    "labels": right[number],
                }
            ),
            "blocks": len(tasks),
        }

    def logits(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        """Cosines over the temperature, `[N, C]`; minus infinity where there is no choice."""
        embedding = mean_embedding(output, batch["inputs"]["attention_mask"])
        cosine = torch.einsum("nd,ncd->nc", embedding, batch["choices"])
        return (cosine / self.temperature).masked_fill(~batch["is_choice"], -torch.inf)

    def sample_losses(self, output: Any, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the right choice, and ones, `[B, S]` each."""
        losses = F.cross_entropy(self.logits(output, batch), batch["labels"], reduction="none")
        losses = losses.view(batch["blocks"], -1)
        return losses, torch.ones_like(losses)

    @torch.no_grad()
    def evaluate(
        self, target: TargetLike, weights: Weights, tasks: Tensor, split: str = "test"
    ) -> dict[str, Tensor]:
        """Loss, and share of inputs whose nearest choice is right; see `TextSuite.evaluate`."""
        total, hits, count = (torch.zeros(len(tasks)) for _ in range(3))
        for rows, valid in self.evaluation_rows(tasks, split):
            batch = self.batch(tasks, rows, split)
            output = target(weights, batch["inputs"])
            losses, _ = self.sample_losses(output, batch)
            best = self.logits(output, batch).argmax(1)
            right = self._is_right(best.view_as(rows), tasks, rows, split)
            total += (losses.cpu() * valid).sum(1)
            hits += (right & valid).sum(1)
            count += valid.sum(1)
        return {"loss": total / count, "accuracy": hits / count}

    def _is_right(self, best: Tensor, tasks: Tensor, rows: Tensor, split: str) -> Tensor:
        """Whether the chosen text is among the accepted outputs, `[B, S]`."""
        flags = []
        for task, numbers, picks in zip(tasks.tolist(), rows.tolist(), best.tolist(), strict=True):
            instances = self.tasks[task].instances[split]
            chosen = [
                (self.tasks[task].choices(instances[n])[pick], instances[n].outputs)
                for n, pick in zip(numbers, picks, strict=True)
            ]
            flags.append([is_right(text, outputs) for text, outputs in chosen])
        return torch.tensor(flags)


def mean_embedding(output: Any, mask: Tensor) -> Tensor:
    """Mean of the last hidden states over the tokens of a text, of length 1: `[N, D]`.

    Args:
        output: An encoder's output, with `last_hidden_state` `[N, L, D]`.
        mask: `[N, L]`, 1 at tokens.
    """
    hidden = output["last_hidden_state"]
    weight = mask[..., None].to(hidden.dtype)
    return F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)


def answerable(task: TextTask) -> bool:
    """Whether every instance has choices, and the right output is one of them."""
    return all(
        instance.outputs[0] in task.choices(instance)
        for rows in task.instances.values()
        for instance in rows
    )
