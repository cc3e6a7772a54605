"""TextSuite: text tasks as a TaskSuite, for any frozen language model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import UsageError
from hypergen.specs import Weights
from hypergen.zoo.language.models import Kind, LanguageModel, load_language_model
from hypergen.zoo.language.tasks import TextTask, read_tasks
from hypergen.zoo.language.tokens import TokenCache
from hypergen.zoo.tasks import TaskSuite

TargetLike = Callable[[Weights, Any], Any]


class TextSuite(TaskSuite):
    """Text tasks on one frozen model; subclasses say how an instance is asked and judged.

    Args:
        model: A name for `load_language_model`, or a loaded model.
        tasks: A folder for `read_tasks`, or the tasks themselves.
        heldout_families: Families whose tasks are in the split `"heldout_tasks"`, not `"train"`.
        heldout_descriptions: How many of each task's last descriptions are the wordings
            `"heldout"`; at most half of them.
        max_length: Most tokens of a sample.
        eval_samples: Most samples of a task in `evaluate`, evenly spaced; all when not given.
        eval_batch: Rows of a forward pass in `evaluate`.
        cache: Folder of tokenised texts; memory alone when not given.

    Attributes:
        tasks: The tasks, by number.
        skipped: One error for each task file that could not be read.
        language_model: The frozen model and its tokenizer.
        network: The frozen network that targets are made for.
    """

    kind: Kind

    def __init__(
        self,
        model: str | LanguageModel,
        tasks: str | Path | Sequence[TextTask],
        *,
        heldout_families: Sequence[str] = (),
        heldout_descriptions: int = 2,
        max_length: int = 256,
        eval_samples: int | None = None,
        eval_batch: int = 128,
        cache: str | Path | None = None,
    ) -> None:
        self._config: dict[str, Any] = {
            "model": model if isinstance(model, str) else None,
            "tasks": str(tasks) if isinstance(tasks, (str, Path)) else None,
            "heldout_families": list(heldout_families),
            "heldout_descriptions": heldout_descriptions,
            "max_length": max_length,
            "eval_samples": eval_samples,
            "eval_batch": eval_batch,
        }
        if isinstance(model, str):
            model = load_language_model(model, kind=self.kind)
        self.language_model = model
        self.skipped: tuple[Exception, ...] = ()
        if isinstance(tasks, (str, Path)):
            tasks, errors = read_tasks(tasks)
            self.skipped = tuple(errors)
        if not tasks:
            raise UsageError("a suite needs at least one task")
        self.tasks = tuple(tasks)
        self.network: nn.Module = self._network(model.model)
        self.max_length = min(max_length, model.max_length)
        self.eval_samples, self.eval_batch = eval_samples, eval_batch
        self._tokens = TokenCache(model.tokenizer, cache)
        self._cache = cache
        self.names = tuple(task.name for task in self.tasks)
        self.heldout_families = frozenset(heldout_families)
        self.task_splits = {
            "train": [i for i, t in enumerate(self.tasks) if t.family not in heldout_families],
            "heldout_tasks": [i for i, t in enumerate(self.tasks) if t.family in heldout_families],
        }
        held = [min(heldout_descriptions, len(t.descriptions) // 2) for t in self.tasks]
        self.descriptions = {
            "train": [
                list(t.descriptions[: len(t.descriptions) - k])
                for t, k in zip(self.tasks, held, strict=True)
            ],
            "heldout": [
                list(t.descriptions[len(t.descriptions) - k :])
                for t, k in zip(self.tasks, held, strict=True)
            ],
        }
        self._counts: dict[str, Tensor] = {}

    # -- for subclasses ------------------------------------------------------------------------

    def _network(self, model: nn.Module) -> nn.Module:
        """The network that targets are made for."""
        return model

    @abstractmethod
    def batch(self, tasks: Tensor, rows: Tensor, split: str = "train") -> dict[str, Any]:
        """Chosen instances as a batch.

        Args:
            tasks: `[B]` task numbers.
            rows: `[B, S]` numbers of instances of the split.
            split: Split of the instances.

        Returns:
            `inputs` for the target, `B · S` rows in blocks by task; `blocks`, the number B; and
            what `sample_losses` needs.
        """

    @abstractmethod
    def sample_losses(self, output: Any, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Summed loss and number of predictions of each sample, both `[B, S]`."""

    @abstractmethod
    def evaluate(
        self, target: TargetLike, weights: Weights, tasks: Tensor, split: str = "test"
    ) -> dict[str, Tensor]:
        """`loss` and `accuracy`, `[B]` each, of each network on its own task."""

    @property
    def device(self) -> torch.device:
        """Where the network is; tokens are put together on the CPU and sent there."""
        return next(self.network.parameters()).device

    def to_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs of the network, sent to it."""
        return {name: value.to(self.device) for name, value in inputs.items()}

    # -- TaskSuite -----------------------------------------------------------------------------

    def counts(self, split: str) -> Tensor:
        """`[T]`, instances of each task in a split."""
        if split not in self._counts:
            self._counts[split] = torch.tensor(
                [len(t.instances.get(split, ())) for t in self.tasks]
            )
        return self._counts[split]

    def check_split(self, tasks: Tensor, split: str) -> None:
        """Checks that every task has instances in a split.

        Raises:
            UsageError: One has none; names it.
        """
        for task in tasks[self.counts(split)[tasks] == 0].tolist():
            raise UsageError(f"task {self.names[task]!r} has no instances in split {split!r}")

    def sample(
        self, tasks: Tensor, samples: int, generator: torch.Generator, split: str = "train"
    ) -> dict[str, Any]:
        """Draws instances with replacement; see `TaskSuite.sample`."""
        self.check_split(tasks, split)
        draw = torch.rand(len(tasks), samples, generator=generator)
        return self.batch(tasks, (draw * self.counts(split)[tasks][:, None]).long(), split)

    def losses(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        """Mean loss of each task's own samples, `[B]`: no task depends on its neighbours."""
        total, count = self.sample_losses(output, batch)
        return total.sum(1) / count.sum(1)

    def loss(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        """Mean of `losses` over the tasks."""
        return self.losses(output, batch).mean()

    def score(
        self, target: TargetLike, weights: Weights, tasks: Tensor, split: str = "test"
    ) -> Tensor:
        """Accuracy, `[B]`; see `evaluate`."""
        return self.evaluate(target, weights, tasks, split)["accuracy"]

    def load_model(self, run: Path) -> nn.Module:
        """The frozen network, which a run names and does not hold; see `TaskSuite`."""
        return self.network

    def evaluation_rows(
        self, tasks: Tensor, split: str, batch: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The instances to evaluate on, a chunk at a time.

        Args:
            tasks: `[B]` task numbers.
            split: Split of the instances.
            batch: Rows of a chunk, `eval_batch` when not given; at least one of each task.

        Yields:
            Rows `[B, S]`, and which of them count: `[B, S]`, false where a task has fewer.
        """
        self.check_split(tasks, split)
        counts = self.counts(split)[tasks]
        used = counts if self.eval_samples is None else counts.clamp(max=self.eval_samples)
        place = torch.arange(int(used.max()))
        spaced = place[None] * counts[:, None] // used[:, None]
        rows = torch.minimum(spaced, counts[:, None] - 1)
        valid = place[None] < used[:, None]
        chunk = max(1, (batch or self.eval_batch) // len(tasks))
        yield from zip(rows.split(chunk, 1), valid.split(chunk, 1), strict=True)

    def config(self) -> dict[str, Any]:
        """Constructor arguments; see `TaskSuite.config`."""
        for key in ("model", "tasks"):
            if self._config[key] is None:
                raise UsageError(f"a suite that was given its {key} as objects cannot be saved")
        return dict(self._config)

    def with_tasks(self, folder: str | Path) -> TextSuite:
        """A suite with the tasks of a folder added, as the wordings and task split `"given"`."""
        given, errors = read_tasks(folder)
        options = {k: v for k, v in self._config.items() if k not in ("model", "tasks")}
        suite = type(self)(self.language_model, (*self.tasks, *given), cache=self._cache, **options)
        old = len(self.tasks)
        suite.skipped = (*self.skipped, *errors)
        for split, numbers in suite.task_splits.items():
            suite.task_splits[split] = [n for n in numbers if n < old]
        suite.task_splits["given"] = list(range(old, len(suite.tasks)))
        for wordings in suite.descriptions.values():
            wordings[old:] = [[] for _ in given]
        suite.descriptions["given"] = [
            *([] for _ in range(old)),
            *(list(t.descriptions) for t in given),
        ]
        return suite
