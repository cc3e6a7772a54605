"""Text tasks on a frozen language model: the data module of `configs/text2lora_smollm2.yaml`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.seeding import generator as seeded
from hypergen.conditions import ConditionEncoder, text_encoder_by_name
from hypergen.specs import Weights
from hypergen.targets import make_target
from hypergen.training.bank import Batch, WordingBank
from hypergen.training.baselines import (
    MULTITASK,
    MULTITASK_PLAIN,
    copy_multitask,
    save_baselines,
    save_multitask,
    stored_adapters,
    trained_adapters,
)
from hypergen.training.data import TaskDataModule
from hypergen.training.parts import Parts
from hypergen.training.wordings import VariedBank
from hypergen.zoo.language import CausalSuite
from hypergen.zoo.language.kinds import writing_suite
from hypergen.zoo.language.methods import is_lora, method_spec
from hypergen.zoo.language.splits import choose_families, limited, read_usable
from hypergen.zoo.language.tokens import IGNORED
from hypergen.zoo.store import Zoo

DEFAULT_TASKS = "$HYPERGEN_DATA/tasks"


class LanguageDataModule(TaskDataModule):
    """Text tasks (Super-NaturalInstructions format) for adapters of a frozen language model.

    The model writes the answers: it is causal or an encoder–decoder, which picks the suite.

    Tasks are split by family: training tasks in `"train"` (with their variants `"augmented"`, which
    is then what is trained on), validation families in `"val"`, held-out families in
    `"heldout_tasks"`. Each task's descriptions are split too: `"train"`, `"val"`, `"heldout"`.
    Validation scores tasks on their test instances where the files have no instances `"val"`; no
    other table reads those.

    The run folder gets the suite (with a hash of every task, so that changed files are noticed) and
    the baselines that steps or a folder are given for, which `hypergen evaluate` prints.

    Args:
        model: `"smollm2"`, a folder, a GGUF file or a hub name.
        tasks: Folder of task files; `$HYPERGEN_DATA/tasks` when not given.
        families: Only tasks of these families.
        heldout_families: Families to hold out, or the share of the tasks that they have: whole
            families are drawn by `seed`.
        val_families: Families to validate on, likewise.
        train_limit: Most training tasks, drawn by `seed`, each with those of any smaller limit: for
            curves of what more tasks bring. All when not given.
        heldout_wordings: Descriptions of each task to hold out; never more than half of them.
        val_wordings: Descriptions of each task for validation, within the same half.
        method: Arguments of `LoRASpec` (`r`, `alpha`, `target_modules`, …), or, with the key
            `peft_type`, of any method of PEFT.
        prompt: Arguments of `hypergen.zoo.language.Prompt`: `description`, `examples`, `template`.
        encoder: `"text"` (the sentence encoder if there is one, else hashed n-grams with a
            warning), `"hashing"`, or an encoder of texts.
        text_layer: Hidden state of the sentence encoder that is read token by token.
        augment: Arguments of `hypergen.zoo.language.augment.augment` (`per_task`, `kinds`, …) for
            variants of the training tasks; none when not given.
        description_dropout: Share of the tasks of a batch that are described by `neutral` instead,
            so that it comes to stand for the weights that are best for all of them.
        neutral: A description that says nothing about the task.
        wordings_per_task: Networks of a batch for each task, generated from different descriptions:
            what the objective `consistency` compares. `tasks_per_batch` counts networks.
        prompt_dropout: Share of the networks of a batch whose prompt lacks the description that
            `prompt` puts there, so that what is generated has to say what to do.
        pack: Whether a network's samples stand behind one another in one sequence, so that a
            description is read once for all of them; where the method is LoRA and the model causal
            when not given (others prepend or trace what a packed mask does not know).
        group: Batches that are drawn together and cut by length, so that little is padded.
        teacher_examples: Demonstrations in the prompt of the model whose answers the objective
            `distillation` imitates; the description is there too, whatever is dropped for the
            generated adapter.
        max_length: Most tokens of a sample.
        scoring: What tasks are scored by: `"exact"` match of the greedy answer, `"rank"` of the
            closed label set, or `"auto"`: rank where the task's file gives labels.
        eval_samples: Most test samples of a task, evenly spaced.
        eval_rows: Rows of a forward pass in evaluation.
        dtype: Dtype of the frozen model, such as `"bfloat16"`; generated weights stay float32.
        checkpoint: Compute the activations of the frozen model's layers again in the backward pass
            instead of keeping them: less memory for a third more time.
        attention: transformers' `attn_implementation`; `"eager"` is the faster one for sequences of
            about a hundred tokens on a CPU, and what methods other than LoRA need.
        zoo_folder: A zoo of adapters (`hypergen zoo build`) for reconstruction and baselines.
        zoo_steps: Without a folder, steps to train each training task's adapter in; 0 for no zoo.
        zoo_samples: Samples of an adapter in one of these steps.
        zoo_lr: Peak learning rate of adapters trained here: zoo, multi-task, oracles.
        multitask_steps: Steps to train the multi-task baseline in; 0 for none.
        multitask: A run of the generator `MultiTask` to take as the multi-task baseline instead,
            trained on the same batches for as long as the run that it is compared with.
        multitask_plain: The same, trained without descriptions in its prompts.
        oracle_steps: Steps in which `hypergen evaluate` trains oracles; 0 for none.
        cache: Folder of tokenised texts and encoded descriptions, each under the hash of its
            content; memory alone when not given.
        tasks_per_batch: Networks of a batch (over all processes).
        samples_per_task: Samples of each.
        eval_batch: Networks generated and scored at a time in evaluation.
        seed: Seed of everything.
        **batches: Further arguments of `hypergen.training.TaskDataModule`.

    Raises:
        UsageError: An option is out of range or does not fit the others.
    """

    VAL_SPLITS: ClassVar[dict[str, str]] = {"val": "train"}
    TEST_SPLITS: ClassVar[dict[str, str]] = {"heldout_tasks": "train"}

    def __init__(
        self,
        model: str = "smollm2",
        tasks: str | None = None,
        families: list[str] | None = None,
        heldout_families: float | list[str] = 0.2,
        val_families: float | list[str] = 0.1,
        train_limit: int | None = None,
        heldout_wordings: int = 2,
        val_wordings: int = 1,
        method: dict[str, Any] | None = None,
        prompt: dict[str, Any] | None = None,
        encoder: Literal["text", "hashing"] | ConditionEncoder = "text",
        text_layer: int = 4,
        augment: dict[str, Any] | None = None,
        description_dropout: float = 0.0,
        neutral: str = "Do the task.",
        wordings_per_task: int = 1,
        prompt_dropout: float = 0.0,
        pack: bool | None = None,
        group: int = 1,
        teacher_examples: int = 3,
        max_length: int = 256,
        scoring: Literal["auto", "exact", "rank"] = "auto",
        eval_samples: int | None = 64,
        eval_rows: int = 64,
        dtype: str = "float32",
        attention: str | None = None,
        checkpoint: bool = False,
        zoo_folder: str | None = None,
        zoo_steps: int = 0,
        zoo_samples: int = 4,
        zoo_lr: float = 2e-3,
        multitask_steps: int = 0,
        multitask: str | None = None,
        multitask_plain: str | None = None,
        oracle_steps: int = 0,
        cache: str | None = None,
        tasks_per_batch: int = 8,
        samples_per_task: int = 2,
        eval_batch: int = 16,
        seed: int = 0,
        **batches: Any,
    ) -> None:
        if augment is not None:
            batches.setdefault("train_tasks", "augmented")
            if batches["train_tasks"] == "train":  # the parent's default, spelled out by a recipe
                batches["train_tasks"] = "augmented"
        if not val_families:  # then the training tasks in descriptions of their own
            batches["val_splits"] = batches.get("val_splits") or {"train": "val"}
        super().__init__(
            tasks_per_batch=tasks_per_batch,
            samples_per_task=samples_per_task,
            eval_batch=eval_batch,
            seed=seed,
            **batches,
        )
        if not 0 <= description_dropout < 1:
            raise UsageError(
                f"description_dropout={description_dropout} must be at least 0 and below 1"
            )
        if wordings_per_task < 1 or tasks_per_batch % wordings_per_task:
            raise UsageError(
                f"tasks_per_batch={tasks_per_batch} networks cannot be shared by tasks of "
                f"wordings_per_task={wordings_per_task}: take a multiple"
            )
        if group < 1:
            raise UsageError(f"group must be 1 or more, not {group}")
        for name, value in (
            ("zoo_steps", zoo_steps),
            ("multitask_steps", multitask_steps),
            ("oracle_steps", oracle_steps),
        ):
            if value < 0:
                raise UsageError(f"{name} must be 0 or more, not {value}")
        self.model, self.tasks_folder, self.families = model, tasks, families
        if train_limit is not None and train_limit < 1:
            raise UsageError(f"train_limit must be 1 or more, not {train_limit}")
        self.heldout_families, self.val_families = heldout_families, val_families
        self.train_limit = train_limit
        self.heldout_wordings, self.val_wordings = heldout_wordings, val_wordings
        self.method = method or {"r": 8, "target_modules": ["q_proj", "v_proj"]}
        self.prompt = prompt or {}
        self.encoder_name, self.text_layer = encoder, text_layer
        self.augment = augment
        self.description_dropout, self.neutral = description_dropout, neutral
        self.wordings_per_task = wordings_per_task
        self.prompt_dropout, self.group, self.scoring = prompt_dropout, group, scoring
        self.pack, self.checkpoint = pack, checkpoint
        self.max_length, self.eval_samples, self.eval_rows = max_length, eval_samples, eval_rows
        self.dtype, self.attention, self.cache = dtype, attention, cache
        self.zoo_folder, self.zoo_steps = zoo_folder, zoo_steps
        self.zoo_samples, self.zoo_lr = zoo_samples, zoo_lr
        self.multitask_steps, self.oracle_steps = multitask_steps, oracle_steps
        self.multitask_runs = {MULTITASK: multitask, MULTITASK_PLAIN: multitask_plain}
        if multitask is not None and multitask_steps:
            raise UsageError("multitask names a trained adapter: leave out multitask_steps")
        self.teacher_examples = teacher_examples
        self._taught: CausalSuite | None = None
        self._length: Tensor | None = None

    # -- parts ---------------------------------------------------------------------------------

    def build(self) -> Parts:
        """Reads the tasks, loads the model and finds the encoder.

        A task file that cannot be read, or has no instances to train or to test on, is left out
        with a warning.

        Raises:
            UsageError: No folder or no task, or an option that model or method do not take.
        """
        folder = (
            DEFAULT_TASKS if self.tasks_folder is None else str(Path(self.tasks_folder).resolve())
        )
        if self.tasks_folder is None and not os.environ.get("HYPERGEN_DATA"):
            raise UsageError("say where the task files are: --data.tasks FOLDER, or HYPERGEN_DATA")
        tasks = read_usable(Path(os.path.expandvars(folder)), self.families)
        heldout, val = choose_families(
            [task.family for task in tasks], self.heldout_families, self.val_families, self.seed
        )
        tasks = limited(tasks, {*heldout, *val}, self.train_limit, self.seed)
        load: dict[str, Any] = {"dtype": self.dtype}
        # torch.func cannot trace every fused attention.
        attention = self.attention or (None if is_lora(self.method) else "eager")
        if attention is not None:
            load["attention"] = attention
        model = str(Path(self.model).resolve()) if Path(self.model).exists() else self.model
        suite_class = writing_suite(model)
        by_default = suite_class.packs and is_lora(self.method)
        try:
            suite = suite_class(
                model,
                folder,
                prompt=self.prompt,
                heldout_families=heldout,
                val_families=val,
                heldout_descriptions=self.heldout_wordings,
                val_descriptions=self.val_wordings,
                augment=self.augment,
                load=load,
                hashes={task.name: task.hash for task in tasks},
                scoring=self.scoring,
                pack=by_default if self.pack is None else self.pack,
                prompt_dropout=self.prompt_dropout,
                max_length=self.max_length,
                eval_samples=self.eval_samples,
                eval_batch=self.eval_rows,
                cache=self.cache,
            )
        except TypeError as error:
            raise UsageError(f"prompt: {error}") from error
        suite.check_room()  # now, and not in the middle of training
        spec = method_spec(suite.language_model, self.method, self.seed)
        return (
            suite,
            text_encoder_by_name(self.encoder_name, self.text_layer),
            make_target(suite.network, spec, checkpoint=self.checkpoint),
        )

    def build_zoo(self) -> tuple[Weights, Sequence[int]]:
        """Adapters of the training tasks: read from the folder, or trained here, in stacks.

        Raises:
            UsageError: Neither a folder nor steps are given, or the folder's zoo is of another
                model, method, prompt or version of a task; says which.
        """
        suite = self.suite
        assert isinstance(suite, CausalSuite)
        wanted = suite.task_splits["train"]
        if self.zoo_folder is not None:
            return stored_adapters(Zoo(self.zoo_folder), suite, self.spec, wanted)
        if self.zoo_steps < 1:
            raise UsageError(
                "this needs trained adapters: give --data.zoo_folder DIR (of `hypergen zoo build`)"
                " or --data.zoo_steps"
            )
        return trained_adapters(
            self.target,
            suite,
            wanted,
            steps=self.zoo_steps,
            samples=self.zoo_samples,
            lr=self.zoo_lr,
            seed=self.seed,
        )

    @property
    def memory_advice(self) -> str:
        """See `TaskDataModule.memory_advice`; validation has a knob of its own."""
        further = "" if self.checkpoint else "; set --data.checkpoint true"
        return (
            f"{super().memory_advice} or --data.max_length (now {self.max_length}){further}; in "
            f"validation, lower --data.eval_rows (now {self.eval_rows})"
        )

    # -- batches -------------------------------------------------------------------------------

    def bank(self, tasks: str, wordings: str) -> WordingBank:
        """The encoded descriptions; see `TaskDataModule.bank`.

        Those of the training tasks are drawn with `description_dropout` and `wordings_per_task`.
        """
        key = (tasks, wordings)
        varied = self.description_dropout > 0 or self.wordings_per_task > 1
        if varied and key == (self.train_tasks, self.train_wordings) and key not in self._banks:
            plain = super().bank(tasks, wordings)  # says what is wrong with the names
            self._banks[key] = VariedBank(
                self.encoder,
                self.suite.descriptions[wordings],
                plain.tasks.tolist(),
                per_task=self.wordings_per_task,
                neutral=self.neutral,
                dropout=self.description_dropout,
                cache=self.cache,
            )
        return super().bank(tasks, wordings)

    def _chosen(
        self, step: int, tasks: Tensor, sizes: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        if self.group == 1:
            return super()._chosen(step, tasks, sizes, generator)
        # A function of the step alone: every step of a group draws the same tasks and takes its
        # own part of them, in a random order, so that lengths do not rise within each group.
        number, place = divmod(step, self.group)
        together = seeded("group", self.seed, number)
        drawn = torch.cat([self._choose(len(tasks), sizes, together) for _ in range(self.group)])
        blocks = drawn.view(-1, self.wordings_per_task)
        order = self._lengths()[tasks[blocks[:, 0]]].argsort(stable=True)
        parts = blocks[order].view(self.group, -1)
        return parts[torch.randperm(self.group, generator=together)[place]]

    def _lengths(self) -> Tensor:
        """Tokens of a network's row of a batch, about, for each task `[T]`."""
        suite = self.suite
        assert isinstance(suite, CausalSuite)
        if self._length is None:
            self._length = suite.mean_lengths(self.samples_per_task)
        return self._length

    def _choose(self, count: int, sizes: Tensor | None, generator: torch.Generator) -> Tensor:
        wanted = self.tasks_per_batch // self.wordings_per_task
        if sizes is None and wanted <= count:
            chosen = torch.randperm(count, generator=generator)[:wanted]
        else:
            chosen = super()._choose(count, sizes, generator)[:wanted]
        return chosen.repeat_interleave(self.wordings_per_task)

    def _sample(
        self,
        tasks: Tensor,
        generator: torch.Generator,
        split: str,
        share: slice | None = None,
        avoid: Tensor | None = None,
    ) -> Batch:
        suite = self.suite
        assert isinstance(suite, CausalSuite)
        taught = "teacher_logits" in self.needs
        suite.teacher = self._teacher(suite) if taught else None
        batch = super()._sample(tasks, generator, self._instances(tasks, split), share, avoid)
        if taught:
            with torch.no_grad():
                batch["teacher_logits"] = self.target.base(batch.pop("teacher"))
            batch["label_mask"] = batch["labels"] != IGNORED
        return batch

    def _teacher(self, suite: CausalSuite) -> CausalSuite:
        """The suite with description and demonstrations in its prompt."""
        if self._taught is None:
            if not suite.prompt.description:
                raise UsageError(
                    "the objective 'distillation' learns from the model that is given the "
                    "description: set prompt.description, and prompt_dropout=1 if the adapter is "
                    "to do without"
                )
            self._taught = suite.in_context(self.teacher_examples)
        return self._taught

    def score(self, weights: Weights, tasks: Tensor, split: str) -> Tensor:
        """Score `[B]` of each network on its task; the suite sends its batches to the target."""
        tasks = tasks.cpu()
        return self.suite.score(self.target, weights, tasks, self._instances(tasks, split))

    def _instances(self, tasks: Tensor, split: str) -> str:
        suite = self.suite
        assert isinstance(suite, CausalSuite)
        if split != "val" or bool((suite.counts("val")[tasks] > 0).all()):
            return split
        return "test"

    # -- the run folder ------------------------------------------------------------------------

    def save(self, run: Path) -> None:
        """Writes `suite.json` and the baselines that the run is evaluated against."""
        self.suite.save(run)
        settings = {
            "oracle_steps": self.oracle_steps,
            "oracle_options": {"samples": self.zoo_samples, "lr": self.zoo_lr},
            "train_wordings": self.train_wordings,
            "chunk": self.eval_batch,
        }
        has_zoo = self.zoo_folder is not None or self.zoo_steps > 0
        save_baselines(run, self.suite, settings, self.zoo if has_zoo else None)
        options = {
            "steps": self.multitask_steps,
            "tasks_per_step": self.tasks_per_batch,
            "samples": self.samples_per_task,
            "lr": self.zoo_lr,
            "seed": self.seed,
        }
        tasks = self.suite.task_splits[self.train_tasks]
        if self.multitask_runs[MULTITASK] is None:
            save_multitask(run, self.suite, self.target, tasks, options)
        for file, source in self.multitask_runs.items():
            if source is not None:
                copy_multitask(run, file, source, self.spec)
