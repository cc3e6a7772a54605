"""TaskSuite: many tasks on one frozen target, with the descriptions that name them."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import RunError, UsageError, did_you_mean
from hypergen._utils.io import read_json, write_json
from hypergen.specs import Weights
from hypergen.zoo.files import TaskFile, read_task_files

SUITE_FILE = "suite.json"


class TaskSuite(ABC):
    """Many tasks for one target.

    Suites register themselves by class name, so that a run folder can name the one that it was
    trained on (`save`, `load`).

    Attributes:
        names: One name a task; its position is the task's number.
        descriptions: Split of wordings (`"train"`, `"val"`, `"heldout"`, …) → for each task, its
            descriptions (or other raw conditions); a task may have none in a split.
        task_splits: Split of tasks (`"train"`, `"val"`, `"heldout_tasks"`, …) → task numbers.
    """

    names: tuple[str, ...]
    descriptions: dict[str, list[list[str]]]
    task_splits: dict[str, list[int]]

    _registry: ClassVar[dict[str, type[TaskSuite]]] = {}
    # Suites that come with the package and are imported when a run folder names them.
    _modules: ClassVar[dict[str, str]] = {
        "CausalSuite": "hypergen.zoo.language.causal",
        "DigitsSuite": "hypergen.quickstart.suite",
        "SentenceSuite": "hypergen.zoo.language.sentence",
        "StorySuite": "hypergen.zoo.language.story_suite",
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        TaskSuite._registry[cls.__name__] = cls

    @abstractmethod
    def sample(
        self, tasks: Tensor, samples: int, generator: torch.Generator, split: str = "train"
    ) -> dict[str, Any]:
        """Draws training samples.

        Args:
            tasks: `[B]` task numbers.
            samples: Samples of each task.
            generator: Source of randomness; the draw depends on nothing else.
            split: Split of the samples (not of the tasks).

        Returns:
            `inputs` for the target, with `B · samples` rows in blocks by task, and what `loss`
            needs (such as `labels`).
        """

    @abstractmethod
    def loss(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        """Scalar loss of the target's output on a batch of `sample`."""

    @abstractmethod
    def score(
        self,
        target: Callable[[Weights, Any], Any],
        weights: Weights,
        tasks: Tensor,
        split: str = "test",
        wordings: Tensor | None = None,
    ) -> Tensor:
        """Score of each network on its own task, over all samples of a split.

        Args:
            target: The frozen target.
            weights: `B` networks.
            tasks: `[B]` task numbers.
            split: Split of the samples.
            wordings: `[B]`, numbers (`wording`) of the descriptions that the network is shown;
                given only to suites that show one (`reads_description`).

        Returns:
            `[B]`, between 0 and 1, higher is better.
        """

    # -- hooks with a default ------------------------------------------------------------------

    @property
    def memory_advice(self) -> str:
        """What to lower when scoring runs out of memory."""
        return "score fewer networks at a time"

    @property
    def reads_description(self) -> bool:
        """Whether the network itself is shown a description, and so scores depend on it."""
        return False

    def wording(self, task: int, text: str) -> int:
        """The number of one of a task's descriptions, as `score` takes it (default: always 0)."""
        return 0

    def metrics(
        self,
        target: Callable[[Weights, Any], Any],
        weights: Weights,
        tasks: Tensor,
        split: str = "test",
        wordings: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """`score`, and what else is measured along with it: name → `[B]`.

        NaN where a metric does not apply to a task. Arguments are those of `score`.
        """
        if wordings is None:
            return {"score": self.score(target, weights, tasks, split)}
        return {"score": self.score(target, weights, tasks, split, wordings)}

    def prompt_variants(self, shots: int = 3) -> dict[str, TaskSuite]:
        """The same tasks asked in other words: name → suite (default: none).

        Known names are `plain` (the network is shown no description) and `incontext` (it is shown
        demonstrations too, up to `shots`).
        """
        return {}

    def has_samples(self, task: int, split: str) -> bool:
        """Whether a task has samples in a split (default: yes)."""
        return True

    def stack_sizes(self, tasks: Tensor, samples: int, most: int) -> tuple[Tensor, list[int]]:
        """In which order and how many at a time networks of some tasks train as one stack.

        Args:
            tasks: `[n]` task numbers.
            samples: Samples of each task in a step.
            most: Most networks of a stack.

        Returns:
            The tasks in order, and the sizes of the stacks (default: as they are, `most` each).
        """
        return tasks, [len(part) for part in tasks.split(most)]

    def key(self, task: int) -> Hashable:
        """What makes two tasks one: equal keys, equal right answers (default: the name)."""
        return self.names[task]

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-serialisable.

        Raises:
            UsageError: This suite cannot be rebuilt from a run folder.
        """
        raise UsageError(f"{type(self).__name__} has no config(): it cannot be saved with a run")

    def load_model(self, run: Path) -> nn.Module:
        """Rebuilds the frozen network that a run was trained for.

        Args:
            run: The run folder.

        Raises:
            UsageError: This suite cannot.
            RunError: The files are missing or damaged.
        """
        raise UsageError(
            f"{type(self).__name__} has no load_model(): its target cannot be rebuilt from {run}"
        )

    def was_trained_on(self, task: int) -> bool:
        """Whether a record of the training tasks holds this one, where their files are not here."""
        return False

    def extend(self, files: list[TaskFile]) -> TaskSuite:
        """A suite with further tasks, numbered after those that are there.

        Their descriptions are the wordings `"given"` (every other task has none there), their
        numbers the task split `"given"`.

        Raises:
            UsageError: This suite takes no tasks from files, or a file's own keys are malformed
                (`TaskFile.field` says which).
        """
        raise UsageError(f"{type(self).__name__} takes no tasks from files")

    # -- files ---------------------------------------------------------------------------------

    def with_tasks(self, folder: str | Path) -> TaskSuite:
        """A suite with the tasks of a folder added, see `extend` and `read_task_files`.

        Raises:
            UsageError: The folder is missing or empty, or a file is malformed; names file and key.
        """
        return self.extend(read_task_files(folder))

    def to_dict(self) -> dict[str, Any]:
        """Class and arguments, for `from_dict`."""
        return {"class": type(self).__name__, "init_args": self.config()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> TaskSuite:
        """Rebuilds a suite.

        Raises:
            RunError: Unknown class, or arguments that it does not take.
        """
        name = data.get("class", "")
        if name in TaskSuite._modules:
            importlib.import_module(TaskSuite._modules[name])
        cls = TaskSuite._registry.get(name)
        if cls is None:
            known = {*TaskSuite._registry, *TaskSuite._modules}
            raise RunError(
                f"unknown task suite {name!r}: import the module that defines it first."
                f"{did_you_mean(str(name), known)}"
            )
        try:
            return cls(**data.get("init_args", {}))
        except TypeError as error:
            raise RunError(f"task suite {name!r} cannot be built: {error}") from error

    def save(self, run: str | Path) -> Path:
        """Writes `suite.json` into a run folder."""
        return write_json(Path(run) / SUITE_FILE, self.to_dict())

    @staticmethod
    def load(run: str | Path) -> TaskSuite:
        """Reads the suite that a run folder names.

        Raises:
            RunError: The file is missing or damaged, or names an unknown suite; names the file.
        """
        path = Path(run) / SUITE_FILE
        data = read_json(path)
        if not isinstance(data, dict) or not isinstance(data.get("class"), str):
            raise RunError(f"{path} is damaged: it has no text under 'class'")
        if not isinstance(data.get("init_args", {}), dict):
            raise RunError(f"{path} is damaged: 'init_args' is not an object")
        try:
            return TaskSuite.from_dict(data)
        except RunError as error:
            raise RunError(f"{path}: {error}") from error
