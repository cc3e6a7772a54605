"""Zoos of adapters: one frozen language model, many text tasks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen import __version__
from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import LanguageModel, load_language_model
from hypergen._utils.seeding import stable_seed
from hypergen.specs import LoRASpec, WeightSpec
from hypergen.targets import LoRATarget, PeftTarget, Target
from hypergen.zoo.build.ranges import Range
from hypergen.zoo.build.recipe import Recipe
from hypergen.zoo.language.kinds import SUITES
from hypergen.zoo.language.methods import method_spec
from hypergen.zoo.language.sentence import answerable
from hypergen.zoo.language.suite import TextSuite
from hypergen.zoo.language.tasks import TaskFileError, TextTask, read_tasks
from hypergen.zoo.language.train import AdapterRun, AdapterTrajectories, train_adapters
from hypergen.zoo.store import Architecture, Block, Header, Row, Task

KEY = "adapter"


@dataclass(frozen=True)
class AdapterZoo(Recipe):
    """One adapter for each text task (and seed) on a frozen language model or sentence encoder.

    The kind of the model (`model_kind`) says how tasks are asked and judged.

    All adapters of a job train in the same forward and backward passes. Tasks with inputs of
    similar length share a job, so that little is padded. A sentence encoder takes the tasks with
    a closed set of answers, or with inputs that list them; the others are left out and named in
    the header.

    Args:
        name: Name of the zoo.
        model: `"minilm"`, `"smollm2"`, a folder, a GGUF file or a hub name.
        tasks: Folder of task files; `tasks` in `$HYPERGEN_DATA` when not given.
        licence: Licence of the weights.
        seed: Seed of everything.
        families: Only tasks of these families; all when not given.
        without_families: No tasks of these families: hold them out here.
        only: Only these tasks; all when not given.
        method: Arguments of `LoRASpec` (`r`, `alpha`, `target_modules`, …), or, with the key
            `peft_type`, of any method of PEFT.
        seeds: Adapters for each task.
        shared_start: Whether the first adapters of all tasks start from the same values, and so the
            second ones, …: then tasks differ by what was learned alone, which generators that
            imitate weights need. Otherwise every adapter has a start of its own.
        tasks_per_job: Tasks that train as one stacked network, and are lost when a job is killed.
        steps: Optimiser steps.
        samples: Samples of an adapter in one step.
        save_steps: Steps after which a checkpoint is kept; by default the last.
        lr: Peak learning rate: a number, or a range to draw from for every adapter.
        weight_decay: Weight decay, likewise.
        schedule: `"cosine"` or `"constant"`.
        max_length: Most tokens of a sample.
        options: Further options of the suite: `temperature` for a sentence encoder; `prompt`,
            `scoring`, … for a language model.
        evaluation_samples: Test samples of each task for the metrics; all when not given.
        device: Where to train. Bytes are reproducible on the CPU.

    Raises:
        UsageError: A value is out of range; names it.
    """

    name: str
    model: str
    tasks: str | None = None
    licence: str = ""
    seed: int = 0
    families: tuple[str, ...] | None = None
    without_families: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    method: dict[str, Any] = field(default_factory=lambda: {"r": 8})
    seeds: int = 1
    shared_start: bool = True
    tasks_per_job: int = 8
    steps: int = 100
    samples: int = 16
    save_steps: tuple[int, ...] = ()
    lr: Range | float = 2e-3
    weight_decay: Range | float = 0.0
    schedule: str = "cosine"
    max_length: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    evaluation_samples: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("seeds", "tasks_per_job", "steps", "samples", "max_length"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not all(0 <= step <= self.steps for step in self.save_steps):
            raise UsageError(
                f"save_steps {list(self.save_steps)} must lie between 0 and steps={self.steps}"
            )
        for name in ("lr", "weight_decay"):
            try:
                object.__setattr__(self, name, Range.from_plain(getattr(self, name)))
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error

    # -- what the zoo says -------------------------------------------------------------------------

    def header(self) -> Header:
        """Tasks with descriptions and families, the architecture, and the whole recipe."""
        language_model, _ = self._frozen
        tasks, left_out = self._tasks
        return Header(
            name=self.name,
            licence=self.licence,
            tasks={t.name: _task(t) for t in sorted(tasks, key=lambda t: t.name)},
            architectures={
                KEY: Architecture(
                    self._spec,
                    {
                        "class": "PeftModel",
                        "base_model_name_or_path": language_model.name,
                        "base_model_fingerprint": language_model.fingerprint,
                    },
                )
            },
            provenance={
                "recipe": self.to_dict(),
                "hypergen": __version__,
                "torch": torch.__version__,
                "left_out": left_out,
            },
            parts=self.jobs(),
        )

    def jobs(self) -> int:
        """One job for every `tasks_per_job` tasks."""
        return len(self._groups)

    def models(self, job: int) -> int:
        """Adapters of a job."""
        return len(self._groups[job]) * self.seeds

    @property
    def advice(self) -> str:
        """What saves memory."""
        return (
            f"use fewer --workers, or a smaller tasks_per_job (now {self.tasks_per_job}), "
            f"samples (now {self.samples}) or max_length (now {self.max_length})"
        )

    # -- what is trained ---------------------------------------------------------------------------

    @cached_property
    def _frozen(self) -> tuple[LanguageModel, bool]:
        """The model, and whether the adapters are plain LoRAs."""
        is_lora = "peft_type" not in self.method
        # torch.func, which runs other methods, cannot trace every fused attention.
        loaded = load_language_model(self.model, attention=None if is_lora else "eager")
        loaded.model.to(self.device)
        return loaded, is_lora

    @cached_property
    def _spec(self) -> WeightSpec:
        language_model, _ = self._frozen
        return method_spec(language_model, self.method, self.seed)

    @cached_property
    def _tasks(self) -> tuple[list[TextTask], dict[str, str]]:
        """The tasks, those with the shortest inputs first, and why others are left out."""
        folder = self.tasks
        if folder is None:
            if not os.environ.get("HYPERGEN_DATA"):
                raise UsageError("say where the task files are: tasks: FOLDER, or HYPERGEN_DATA")
            folder = str(Path(os.environ["HYPERGEN_DATA"]) / "tasks")
        tasks, errors = read_tasks(
            folder,
            families=self.families,
            without_families=self.without_families,
            names=self.only,
        )
        left_out = {error.path.name: _reason(error) for error in errors}
        if self._frozen[0].kind == "encoder":
            left_out |= {t.name: "open outputs" for t in tasks if not answerable(t)}
            tasks = [t for t in tasks if answerable(t)]
        for task in tasks:
            if not {"train", "test"} <= set(task.instances):
                left_out[task.name] = "no instances to train or to test on"
        tasks = [t for t in tasks if t.name not in left_out]
        if not tasks:
            raise UsageError(f"no task in {folder} can be trained: {left_out}")
        return sorted(tasks, key=lambda t: (_mean_length(t), t.name)), left_out

    @cached_property
    def _groups(self) -> list[list[TextTask]]:
        tasks, size = self._tasks[0], self.tasks_per_job
        return [tasks[i : i + size] for i in range(0, len(tasks), size)]

    def suite(self, job: int) -> TextSuite:
        """The tasks of a job, as they are trained and scored."""
        language_model, _ = self._frozen
        kind = SUITES[language_model.kind]
        try:
            return kind(
                language_model,
                self._groups[job],
                max_length=self.max_length,
                eval_samples=self.evaluation_samples,
                **self.options,
            )
        except TypeError as error:
            raise UsageError(f"options: {kind.__name__} does not take them: {error}") from error

    def adapter_run(self, suite: TextSuite, task: int, number: int) -> AdapterRun:
        """Seed and hyperparameters of an adapter, which follow from the task's name."""
        key = (suite.names[task], number)
        start = (number,) if self.shared_start else key
        return AdapterRun(
            task=task,
            seed=stable_seed(self.seed, "adapter", *start),
            lr=Range.from_plain(self.lr).draw(self.seed, "lr", *key),
            weight_decay=Range.from_plain(self.weight_decay).draw(self.seed, "decay", *key),
        )

    def run(self, job: int, on_step: Callable[[int], None] | None = None) -> list[Block]:
        """Trains the adapters of a job."""
        suite, spec = self.suite(job), self._spec
        target: Target = (
            LoRATarget(suite.network, spec)
            if isinstance(spec, LoRASpec)
            else PeftTarget(suite.network, spec)  # type: ignore[arg-type]
        )
        numbers = [(t, k) for t in range(len(suite.tasks)) for k in range(self.seeds)]
        runs = [self.adapter_run(suite, task, number) for task, number in numbers]
        trained = train_adapters(
            target,
            spec,
            suite,
            runs,
            steps=self.steps,
            samples=self.samples,
            save_steps=self.save_steps or None,
            schedule=self.schedule,
            on_step=on_step,
        )
        parent = f"{self._frozen[0].name}@{self._frozen[0].fingerprint[:16]}"
        rows = [
            Row(
                run=f"{suite.names[task]}-{number}",
                step=step,
                architecture=KEY,
                task=suite.names[task],
                seed=run.seed,
                hyperparameters={
                    "lr": run.lr,
                    "weight_decay": run.weight_decay,
                    "samples": self.samples,
                },
                metrics=_metrics(trained, c, m),
                parent=parent,
            )
            for m, ((task, number), run) in enumerate(zip(numbers, runs, strict=True))
            for c, step in enumerate(trained.steps)
        ]
        return [Block(KEY, trained.weights.transpose(0, 1).flatten(0, 1), rows)]


def _metrics(trained: AdapterTrajectories, c: int, m: int) -> dict[str, dict[str, float]]:
    """Finite metrics of one checkpoint; those of the base beside them, as `base_…`."""
    out: dict[str, dict[str, float]] = {}

    def put(split: str, name: str, value: Tensor) -> None:
        if bool(value.isfinite()):
            out.setdefault(split, {})[name] = float(value)

    for split, metrics in trained.metrics.items():
        for name, values in metrics.items():
            put(split, name, values[c, m])
    for split, metrics in trained.base.items():
        for name, values in metrics.items():
            put(split, f"base_{name}", values[m])
    return out


def _task(task: TextTask) -> Task:
    metadata = {"hash": task.hash, "labels": list(task.labels), **task.metadata}
    return Task(descriptions=task.descriptions, family=task.family, metadata=metadata)


def _mean_length(task: TextTask) -> float:
    texts = [i.input for i in task.instances["train"]]
    return sum(map(len, texts)) / len(texts)


def _reason(error: TaskFileError) -> str:
    """The error without the folder, which differs from machine to machine."""
    return str(error).replace(str(error.path), error.path.name)
