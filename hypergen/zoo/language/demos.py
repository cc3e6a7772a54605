"""Demonstrations of text tasks, asked as a suite asks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import LanguageModel
from hypergen._utils.seeding import generator as seeded
from hypergen.specs import Weights
from hypergen.zoo.demos import Demos, TargetLike
from hypergen.zoo.language.causal import CausalSuite
from hypergen.zoo.language.prompts import Prompt
from hypergen.zoo.language.seq2seq import Seq2SeqSuite
from hypergen.zoo.language.suite import TextSuite
from hypergen.zoo.language.tasks import Instance, TextTask


class SuiteDemos(Demos):
    """Instances of a suite's tasks; the loss is that of the suite.

    Args:
        suite: The tasks.
        tasks: `[B]` task numbers.
        count: Most demonstrations of each.
        split: Split of the instances.
        seed: Seed of the draw; the first ones when None.

    Raises:
        UsageError: A task has no instance in the split.
    """

    def __init__(
        self,
        suite: TextSuite,
        tasks: Tensor,
        count: int,
        split: str = "train",
        seed: int | None = 0,
    ) -> None:
        suite.check_split(tasks, split)
        self.suite, self.tasks, self.split = suite, tasks, split
        self.counts = suite.counts(split)[tasks].clamp(max=count)
        self.rows = torch.zeros(len(tasks), int(self.counts.max()), dtype=torch.long)
        for row, task, kept in zip(self.rows, tasks.tolist(), self.counts.tolist(), strict=True):
            order = torch.arange(kept)
            if seed is not None:
                draw = seeded("demos", seed, suite.tasks[task].hash)
                order = torch.randperm(int(suite.counts(split)[task]), generator=draw)
            row[:kept] = order[:kept]

    def losses(
        self, target: TargetLike, weights: Weights, tasks: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Demos.losses`: cross-entropy summed over answer tokens, and their number."""
        batch = self.suite.batch(self.tasks[tasks], self.rows[tasks[:, None], rows], self.split)
        return self.suite.sample_losses(_answers(target, weights, batch["inputs"]), batch)


def _answers(target: TargetLike, weights: Weights, inputs: dict[str, Any]) -> Tensor:
    """Logits of the answers, also of targets whose model is no view that gives them alone."""
    model = getattr(target, "model", None)
    if model is None or "forward" in vars(model):
        out: Tensor = target(weights, inputs)
        return out
    plain = dict(inputs)
    last, at = plain.pop("answers_alone", None), plain.pop("answer_positions", None)
    logits: Tensor = target(weights, plain).logits
    if last is not None:
        return logits[:, -last:]
    if at is None:
        return logits
    return logits.gather(1, (at + logits.shape[1])[..., None].expand(-1, -1, logits.shape[2]))


class TextDemos(SuiteDemos):
    """Demonstrations as they are written down, for a language model that writes the answer.

    Args:
        model: A causal or an encoder–decoder language model.
        demos: For each of `B` tasks its demonstrations, `{"input": …, "output": …}`; one list alone
            stands for one task.
        texts: `[B]` descriptions, for prompts that hold one.
        prompt: How a demonstration becomes text; a `Prompt`, or its arguments. `examples` must
            be 0: a demonstration would stand in its own prompt.
        max_length: Most tokens of a demonstration.

    Attributes:
        network: The network to make targets for (`make_target(demos.network, spec)`).

    Raises:
        UsageError: A demonstration lacks its input or output, a prompt its description, or none is
            given; names the task and the demonstration.
    """

    def __init__(
        self,
        model: LanguageModel,
        demos: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
        texts: str | Sequence[str] | None = None,
        *,
        prompt: Prompt | Mapping[str, Any] | None = None,
        max_length: int = 512,
    ) -> None:
        prompt = prompt if isinstance(prompt, Prompt) else Prompt(**(prompt or {}))
        if prompt.examples:
            raise UsageError("examples must be 0: a demonstration would stand in its own prompt")
        lists: list[Any] = [demos] if demos and isinstance(demos[0], Mapping) else list(demos)
        texts = [texts] if isinstance(texts, str) else texts
        if not lists or (texts is not None and len(texts) != len(lists)):
            raise UsageError(
                f"{len(texts or ())} descriptions for the demonstrations of {len(lists)} tasks: "
                "give one for each task"
            )
        if prompt.description and texts is None:
            raise UsageError("the prompt holds a description: give texts, one for each task")
        tasks = [
            _task(number, own, texts[number] if texts else "") for number, own in enumerate(lists)
        ]
        kind = Seq2SeqSuite if model.kind == "seq2seq" else CausalSuite
        suite = kind(model, tasks, prompt=prompt, heldout_descriptions=0, max_length=max_length)
        self.network = suite.network
        most = max(len(own) for own in lists)
        super().__init__(suite, torch.arange(len(tasks)), most, seed=None)


def _task(number: int, demos: Sequence[Mapping[str, Any]], text: str) -> TextTask:
    rows = []
    for place, demo in enumerate(demos, start=1):
        given, wanted = demo.get("input"), demo.get("output")
        wanted = [wanted] if isinstance(wanted, str) else wanted
        is_list = isinstance(wanted, list) and all(isinstance(w, str) for w in wanted)
        if not isinstance(given, str) or not is_list or not wanted:
            raise UsageError(
                f"demonstration {place} of task {number}: 'input' must be a text, and 'output' a "
                "text (or several that count as right)"
            )
        rows.append(Instance(given, tuple(wanted)))
    if not rows:
        raise UsageError(f"task {number} has no demonstration")
    return TextTask(f"task {number}", f"task {number}", (text,), {"train": tuple(rows)})
