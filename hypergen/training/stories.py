"""Stories with questions: the data module of `configs/generative_adapter_smollm2.yaml`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen.conditions import ConditionEncoder
from hypergen.specs import Weights
from hypergen.training.bank import Batch, WordingBank
from hypergen.training.data import TaskDataModule
from hypergen.training.parts import Parts
from hypergen.training.text import columns
from hypergen.training.text_parts import EncoderName, TextOptions
from hypergen.zoo.language.answer_loss import AnswerLoss, ask_teacher
from hypergen.zoo.language.likelihood import takes_masks
from hypergen.zoo.language.story_suite import StorySuite

DEFAULT_STORIES = "$HYPERGEN_DATA/stories/mctest.jsonl"


class DocumentBank(WordingBank):
    """Documents that are encoded when a batch needs them: their tokens are too many to keep.

    Args:
        encoder: Encodes them; documents go into the batch as they are if it is trained.
        documents: For each task of a suite, its documents.
        tasks: Numbers of the tasks to keep.

    Raises:
        UsageError: The encoder takes no documents.
    """

    def __init__(
        self, encoder: ConditionEncoder, documents: Sequence[Sequence[Any]], tasks: Sequence[int]
    ) -> None:
        super().__init__(None, documents, tasks)
        if encoder.input_name not in ("document", "text", "fused"):
            raise UsageError(f"the encoder takes {encoder.input_name!r}, not documents")
        if encoder.input_name == "fused":
            self.raw = [{"document": text} for text in self.raw]
        # In a list: the bank is no part of what is trained.
        self._encoder = [encoder]
        self._device = torch.device("cpu")

    def to(self, device: torch.device) -> DocumentBank:
        """Where encoded documents go."""
        self._device = device
        return self

    def batch(self, rows: Tensor) -> Batch:
        """`condition` (or the `raw` documents) of `[B]` rows."""
        encoder, raw = self._encoder[0], columns([self.raw[row] for row in rows.tolist()])
        if any(p.requires_grad for p in encoder.parameters()):
            return {"raw": raw}
        with torch.no_grad():
            return {"condition": encoder(raw).detach().to(self._device)}


class StoryDataModule(TaskDataModule):
    """Stories: the condition is the story, the batch are its questions without it.

    All questions of a story use one set of weights, generated once. The loss is the cross-entropy
    of the right answers, and the divergence from the frozen model that has the story in its prompt
    where `distillation` is above 0; `val/score` is the share of the validation stories' questions
    that are answered right. Stories of the splits `train`, `dev` and `test` of the file are trained
    on, validated on and tested on.

    Args:
        stories: A file for `hypergen.zoo.language.stories.read_stories`;
            `$HYPERGEN_DATA/stories/mctest.jsonl` when not given.
        model: `"smollm2"`, a folder, a GGUF file or a hub name.
        method: See `TextOptions`.
        encoder: See `TextOptions`.
        encoder_args: Arguments of a named encoder, such as `chunk_size`.
        cross_entropy: Factor of the cross-entropy of right answers.
        distillation: Factor of the divergence from the model that has the story in its prompt.
        normalize_length: Rank options by their mean instead of summed log-likelihood.
        dtype: Dtype of the frozen model.
        attention: transformers' `attn_implementation`.
        checkpoint: Keep less for the backward pass, for more time.
        tasks_per_batch: Stories of a batch (over all processes).
        samples_per_task: Questions of each.
        eval_batch: Stories generated for and scored at a time.
        seed: Seed of everything.
        **batches: Further arguments of `hypergen.training.TaskDataModule`.

    Raises:
        UsageError: An option is out of range or does not fit the others.
    """

    VAL_SPLITS: ClassVar[dict[str, str]] = {"val": "train"}

    def __init__(
        self,
        stories: str | None = None,
        model: str = "smollm2",
        method: dict[str, Any] | None = None,
        encoder: EncoderName | ConditionEncoder = "document",
        encoder_args: dict[str, Any] | None = None,
        cross_entropy: float = 1.0,
        distillation: float = 0.0,
        normalize_length: bool = True,
        dtype: str = "float32",
        attention: str | None = None,
        checkpoint: bool = False,
        tasks_per_batch: int = 8,
        samples_per_task: int = 4,
        eval_batch: int = 8,
        seed: int = 0,
        **batches: Any,
    ) -> None:
        super().__init__(
            tasks_per_batch=tasks_per_batch,
            samples_per_task=samples_per_task,
            eval_batch=eval_batch,
            seed=seed,
            **batches,
        )
        self.stories, self.model = stories, model
        self.method = method or {"r": 8, "target_modules": ["o_proj"]}
        self.encoder_name, self.encoder_args = encoder, encoder_args
        self.cross_entropy, self.distillation = cross_entropy, distillation
        self.normalize_length, self.dtype = normalize_length, dtype
        self.attention, self.checkpoint = attention, checkpoint
        self._loss = AnswerLoss(cross_entropy, distillation)

    def build(self) -> Parts:
        """Reads the stories, loads the model, and makes encoder and target.

        Raises:
            UsageError: No stories, or an option that model or method do not take.
        """
        if self.stories is None and not os.environ.get("HYPERGEN_DATA"):
            raise UsageError("say where the stories are: --data.stories FILE, or HYPERGEN_DATA")
        given = self.stories
        path = DEFAULT_STORIES if given is None else str(Path(os.path.expandvars(given)).resolve())
        options = TextOptions(
            self.model,
            self.method,
            self.encoder_name,
            self.encoder_args,
            self.dtype,
            self.attention,
            self.checkpoint,
            self.seed,
        )
        suite = StorySuite(
            options.name,
            path,
            load=options.load,
            normalize_length=self.normalize_length,
            loss=self._loss,
            eval_batch=self.eval_batch,
        )
        _, encoder, target = options.parts(suite.language_model, suite.network)
        suite.pack(takes_masks(target.spec))
        return suite, encoder, target

    def bank(self, tasks: str, wordings: str) -> WordingBank:
        """The documents, see `TaskDataModule.bank`; encoded batch by batch."""
        suite = self.suite
        key = (tasks, wordings)
        if key not in self._banks and suite.task_splits.get(tasks) and wordings == "train":
            numbers = suite.task_splits[tasks]
            self._banks[key] = DocumentBank(self.encoder, suite.descriptions["train"], numbers)
        return super().bank(tasks, wordings)

    def _sample(self, *args: Any, **kwargs: Any) -> Batch:
        suite = self.suite
        assert isinstance(suite, StorySuite)
        suite.teach = self.distillation > 0 or "teacher_logits" in self.needs
        batch = super()._sample(*args, **kwargs)
        if suite.teach:
            ask_teacher(self.target.base, batch)
        return batch

    def score(self, weights: Weights, tasks: Tensor, split: str) -> Tensor:
        """Share of right answers `[B]`; the suite sends its batches to the target."""
        return self.suite.score(self.target, weights, tasks.cpu(), split)

    @property
    def memory_advice(self) -> str:
        """See `TaskDataModule.memory_advice`."""
        further = "" if self.checkpoint else "; set --data.checkpoint true"
        return f"{super().memory_advice}{further}; in validation, lower --data.eval_batch"
