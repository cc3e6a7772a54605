"""TextSuite: text tasks as a TaskSuite, for any frozen language model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import Kind, LanguageModel, load_language_model
from hypergen.specs import Weights
from hypergen.zoo.language.splits import make_variants, read_recorded, split_wordings
from hypergen.zoo.language.tasks import TextTask, read_tasks
from hypergen.zoo.language.tokens import TokenCache
from hypergen.zoo.tasks import TaskSuite

TargetLike = Callable[[Weights, Any], Any]


class TextSuite(TaskSuite):
    """Text tasks on one frozen model; subclasses say how an instance is asked and judged.

    Args:
        model: A name for `load_language_model`, or a loaded model.
        tasks: A folder for `read_tasks` (in which `$NAME` stands for an environment variable), or
            the tasks themselves; None for a suite that waits for those of `with_tasks`.
        heldout_families: Families whose tasks are in the split `"heldout_tasks"`, not `"train"`.
        val_families: Families whose tasks are in the split `"val"`.
        heldout_descriptions: How many of each task's last descriptions are the wordings
            `"heldout"`; with those of `val_descriptions` at most half of them.
        val_descriptions: How many of those before them are the wordings `"val"`.
        augment: Arguments of `hypergen.zoo.language.augment.augment` for variants of the training
            tasks: the split `"augmented"` is `"train"` and these. `heldout` among them is a
            number like `per_task`, of variants for the split `"heldout_variants"`.
        load: Further arguments of `load_language_model`, such as `dtype`, for a model by name.
        hashes: Name → `TextTask.hash` of the tasks of the folder to take, which must be unchanged;
            a run folder has them. All tasks as they are when not given. Of a suite without tasks:
            those of the training tasks, by which they are known if they are given again.
        max_length: Most tokens of a sample.
        eval_samples: Most samples of a task in `evaluate`, evenly spaced; all when not given.
        eval_batch: Rows of a forward pass in `evaluate`.
        cache: Folder of tokenised texts; memory alone when not given.

    Attributes:
        tasks: The tasks, by number.
        skipped: One error for each task file that could not be read.
        language_model: The frozen model and its tokenizer.
        network: The frozen network that targets are made for.
        trained: Hashes of the training tasks.

    Raises:
        UsageError: There is no task, or an option does not fit.
        RunError: A task of `hashes` is missing or has changed; names it.
    """

    kind: Kind

    def __init__(
        self,
        model: str | LanguageModel,
        tasks: str | Path | Sequence[TextTask] | None,
        *,
        heldout_families: Sequence[str] = (),
        val_families: Sequence[str] = (),
        heldout_descriptions: int = 2,
        val_descriptions: int = 0,
        augment: Mapping[str, Any] | None = None,
        load: Mapping[str, Any] | None = None,
        hashes: Mapping[str, str] | None = None,
        max_length: int = 256,
        eval_samples: int | None = None,
        eval_batch: int = 128,
        cache: str | Path | None = None,
    ) -> None:
        self._config: dict[str, Any] = {
            "model": model if isinstance(model, str) else None,
            "tasks": str(tasks) if isinstance(tasks, (str, Path)) else None,
            "heldout_families": list(heldout_families),
            "val_families": list(val_families),
            "heldout_descriptions": heldout_descriptions,
            "val_descriptions": val_descriptions,
            "augment": None if augment is None else dict(augment),
            "load": dict(load or {}),
            "max_length": max_length,
            "eval_samples": eval_samples,
            "eval_batch": eval_batch,
        }
        if isinstance(model, str):
            model = load_language_model(model, kind=self.kind, **(load or {}))
        self.language_model = model
        self.skipped: tuple[Exception, ...] = ()
        if isinstance(tasks, (str, Path)):
            tasks, self.skipped = read_recorded(tasks, hashes)
        self._waits = tasks is None
        if not (tasks or self._waits):
            raise UsageError("a suite needs at least one task")
        # What a run must find again; variants are made again from these.
        self._hashes = {task.name: task.hash for task in tasks or ()} or dict(hashes or {})
        tasks = tasks or ()
        split_of = dict.fromkeys(val_families, "val") | dict.fromkeys(
            heldout_families, "heldout_tasks"
        )
        splits = [split_of.get(task.family, "train") for task in tasks]
        variants = make_variants(tasks, splits, augment)
        self.tasks = (*tasks, *(variant for made in variants.values() for variant in made))
        self.network: nn.Module = self._network(model.model)
        self.max_length = min(max_length, model.max_length)
        self.eval_samples, self.eval_batch = eval_samples, eval_batch
        self._tokens = TokenCache(model.tokenizer, cache)
        self._cache = cache
        self.names = tuple(task.name for task in self.tasks)
        self.heldout_families = frozenset(heldout_families)
        self.task_splits = {
            name: [i for i, split in enumerate(splits) if split == name]
            for name in ("train", *(("val",) if val_families else ()), "heldout_tasks")
        }
        start = len(splits)
        for name, made in variants.items():
            self.task_splits[name] = list(range(start, start + len(made)))
            start += len(made)
        if "augmented" in variants:
            self.task_splits["augmented"] = (
                self.task_splits["train"] + self.task_splits["augmented"]
            )
        self.descriptions = split_wordings(
            self.tasks, {"val": val_descriptions, "heldout": heldout_descriptions}
        )
        trained = [tasks[i].hash for i in self.task_splits["train"]]
        self.trained = frozenset(self._hashes.values() if self._waits else trained)
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

    def train_batch(self, tasks: Tensor, rows: Tensor, split: str = "train") -> dict[str, Any]:
        """As `batch`, in the form that is fastest to train on."""
        return self.batch(tasks, rows, split)

    @abstractmethod
    def sample_losses(self, output: Any, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Summed loss and number of predictions of each sample, both `[B, S]`."""

    @abstractmethod
    def evaluate(
        self, target: TargetLike, weights: Weights, tasks: Tensor, split: str = "test"
    ) -> dict[str, Tensor]:
        """`loss` and `accuracy`, `[B]` each, of each network on its own task."""

    @property
    def sizes(self) -> Tensor:
        """`[T]`, training instances of each task."""
        return self.counts("train")

    def key(self, task: int) -> Hashable:
        """The instances: a task under another name, or with its labels in another order, is one."""
        return tuple(sorted(self.tasks[task].instances.items()))

    @property
    def memory_advice(self) -> str:
        """See `TaskSuite.memory_advice`."""
        return (
            f"lower eval_rows (eval_batch of the suite, now {self.eval_batch}) or max_length (now "
            f"{self.max_length})"
        )

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

    def has_samples(self, task: int, split: str) -> bool:
        """Whether a task has instances in a split."""
        return bool(self.tasks[task].instances.get(split))

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
        self,
        target: TargetLike,
        weights: Weights,
        tasks: Tensor,
        split: str = "test",
        wordings: Tensor | None = None,
    ) -> Tensor:
        """Accuracy, `[B]`; see `evaluate`."""
        return self.evaluate(target, weights, tasks, split)["accuracy"]

    def wording(self, task: int, text: str) -> int:
        """The number of a description among all of its task's; see `TaskSuite.wording`."""
        return self.tasks[task].descriptions.index(text)

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
            if self._config[key] is None and not (key == "tasks" and self._waits):
                raise UsageError(f"a suite that was given its {key} as objects cannot be saved")
        return {**self._config, "hashes": dict(self._hashes)}

    def alone(self) -> dict[str, Any]:
        """`to_dict` of this suite without its tasks: for runs that go where the files are not."""
        trained = {n: h for n, h in self._hashes.items() if h in self.trained}
        return {
            "class": type(self).__name__,
            "init_args": {**self.config(), "tasks": None, "augment": None, "hashes": trained},
        }

    def was_trained_on(self, task: int) -> bool:
        """Whether the very same task is among the training tasks; see `TaskSuite`."""
        return self.tasks[task].hash in self.trained

    def with_tasks(self, folder: str | Path) -> TextSuite:
        """A suite with the tasks of a folder added, as the wordings and task split `"given"`."""
        given, errors = read_tasks(folder)
        options = {k: v for k, v in self._config.items() if k not in ("model", "tasks")}
        options |= {"augment": None}  # the variants are among the tasks
        suite = type(self)(self.language_model, (*self.tasks, *given), cache=self._cache, **options)
        old = len(self.tasks)
        suite.skipped = (*self.skipped, *errors)
        suite.trained = self.trained
        suite.task_splits = {**self.task_splits, "given": list(range(old, len(suite.tasks)))}
        for wordings in suite.descriptions.values():
            wordings[old:] = [[] for _ in given]
        suite.descriptions["given"] = [
            *([] for _ in range(old)),
            *(list(t.descriptions) for t in given),
        ]
        return suite
