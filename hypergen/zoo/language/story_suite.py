"""StorySuite: every story is a task, described by itself; its questions are the samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import LanguageModel, load_language_model
from hypergen.specs import Weights
from hypergen.zoo.base_call import BaseCall
from hypergen.zoo.language.answer_loss import AnswerLoss, loss_batch, teacher_batch
from hypergen.zoo.language.answers import answer_only
from hypergen.zoo.language.likelihood import Reader
from hypergen.zoo.language.stories import Story, read_stories
from hypergen.zoo.language.story_trees import StoryTrees, right_options
from hypergen.zoo.tasks import TaskSuite

# Split of a file → split of tasks.
SPLITS = {"train": "train", "dev": "val", "test": "heldout_tasks"}
_TOGETHER = 8  # stories that are scored in one forward pass


class StorySuite(TaskSuite):
    """Stories with multiple-choice questions on a frozen causal language model.

    The network is shown questions without their story: what it knows of the story, the weights
    must tell it. The loss is that of the right option's tokens and of the token that ends a text;
    the score is the share of questions whose right option has the highest log-likelihood, per
    token if `normalize_length`.

    Args:
        model: A name for `load_language_model`, or a loaded causal model.
        stories: A file for `read_stories` (in which `$NAME` stands for an environment variable), or
            the stories.
        load: Further arguments of `load_language_model`.
        pack: See `Reader`; the questions of a story are then one row.
        normalize_length: Rank options by their mean instead of summed log-likelihood.
        loss: Factors of the loss.
        eval_batch: Stories of a forward pass in `score`.

    Attributes:
        stories: The stories, by task number.
        teach: Whether `sample` adds the same questions behind their story, to learn from.

    Raises:
        UsageError: A file of stories is malformed, or there is no story.
    """

    def __init__(
        self,
        model: str | LanguageModel,
        stories: str | Path | Sequence[Story],
        *,
        load: Mapping[str, Any] | None = None,
        pack: bool = True,
        normalize_length: bool = True,
        loss: AnswerLoss | None = None,
        eval_batch: int = _TOGETHER,
    ) -> None:
        self._config = {
            "model": model if isinstance(model, str) else None,
            "stories": str(stories) if isinstance(stories, (str, Path)) else None,
            "load": dict(load or {}),
            "pack": pack,
            "normalize_length": normalize_length,
            "eval_batch": eval_batch,
        }
        if isinstance(stories, (str, Path)):
            stories = read_stories(os.path.expandvars(stories))
        if not stories:
            raise UsageError("there is no story")
        if isinstance(model, str):
            model = load_language_model(model, kind="causal", **(load or {}))
        self.language_model, self.stories = model, tuple(stories)
        self.network: nn.Module = answer_only(model.model)
        self.names = tuple(story.id for story in self.stories)
        self.descriptions = {"train": [[story.text] for story in self.stories]}
        self.task_splits: dict[str, list[int]] = {"train": []}
        for number, story in enumerate(self.stories):
            self.task_splits.setdefault(SPLITS.get(story.split, story.split), []).append(number)
        self.trees = StoryTrees(model.tokenizer)
        self.reader = Reader(self.network, self.trees.pad, model.max_length, pack)
        self.normalize_length, self.eval_batch = normalize_length, eval_batch
        self._loss = loss or AnswerLoss()
        self.teach = False

    def pack(self, pack: bool) -> None:
        """Sets whether the questions of a story are one row, see `Reader`."""
        self.reader = replace(self.reader, pack=pack)
        self._config["pack"] = pack

    @property
    def sizes(self) -> list[int]:
        """Questions of each story."""
        return [len(story.questions) for story in self.stories]

    @property
    def memory_advice(self) -> str:
        """See `TaskSuite.memory_advice`."""
        return f"lower eval_batch of the suite (now {self.eval_batch})"

    def sample(
        self, tasks: Tensor, samples: int, generator: torch.Generator, split: str = "train"
    ) -> dict[str, Any]:
        """Questions of each story, without replacement as far as they go; see `TaskSuite`."""
        told: list[list[int]] = []
        for task in tasks.tolist():
            count = len(self.stories[task].questions)
            order = torch.randperm(count, generator=generator).tolist()
            told.append([order[i % count] for i in range(samples)])
        chosen = [self.stories[task] for task in tasks.tolist()]
        pairs = list(zip(chosen, told, strict=True))
        laid = self.reader.lay_out([self.trees.answers(*pair) for pair in pairs])
        batch = loss_batch(laid, torch.ones(laid.branches), self.reader.device)
        if self.teach:
            taught = [self.trees.answers(*pair, told=True) for pair in pairs]
            batch |= teacher_batch(self.reader.lay_out(taught, True), self.reader.device)
        return batch

    def loss(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        """Mean over questions of the loss per token; see `AnswerLoss`."""
        return self._loss(output, batch)

    def score(
        self,
        target: Callable[[Weights, Any], Any],
        weights: Weights,
        tasks: Tensor,
        split: str = "test",
        wordings: Tensor | None = None,
    ) -> Tensor:
        """Share of each story's questions that are answered right, `[B]`; see the class."""
        out = torch.zeros(len(tasks))
        is_base = isinstance(target, BaseCall)
        for at in torch.arange(len(tasks)).split(self.eval_batch):
            own = [self.stories[task] for task in tasks[at].tolist()]
            trees = [self.trees.choices(story) for story in own]
            part = None if is_base else weights[at]
            call = self.network if is_base else target
            found = self.reader.read(call, part, trees)
            for i, story, sums, counts in zip(at.tolist(), own, *found, strict=True):
                scores = sums / counts if self.normalize_length else sums
                out[i] = right_options(story, scores).float().mean()
        return out

    def config(self) -> dict[str, Any]:
        """Constructor arguments; see `TaskSuite.config`."""
        for key in ("model", "stories"):
            if self._config[key] is None:
                raise UsageError(f"a suite that was given its {key} as objects cannot be saved")
        return dict(self._config)

    def load_model(self, run: Path) -> nn.Module:
        """The frozen network, which a run names and does not hold; see `TaskSuite`."""
        return self.network
