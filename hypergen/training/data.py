"""Batches of tasks, their descriptions and their samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.seeding import generator as seeded
from hypergen.conditions import ConditionEncoder
from hypergen.generators.library import Experts
from hypergen.specs import Weights
from hypergen.targets import Target
from hypergen.training.bank import Batch, ListLoader, StepLoader, WordingBank
from hypergen.training.parts import Parts, TaskParts
from hypergen.training.processes import own_share, rank_and_world
from hypergen.zoo import TaskSuite

__all__ = ["Parts", "TaskDataModule"]


class TaskDataModule(TaskParts):
    """Batches of a task suite: some tasks, one wording of each, some samples of each.

    Training batch i is a function of `seed` and i alone, whatever the number of processes: with
    several, each takes its share of the same global batch. Descriptions are encoded once.

    A batch holds `condition` (`[U]` distinct conditions; `raw` descriptions instead when the
    encoder is trained too), `gather` (`[B]`, which condition each network has, if tasks are drawn
    with replacement), `tasks` (`[B]`), what `suite.sample` returns (B · samples_per_task rows in
    blocks by task) and stored `weights` (`[B, numel]`), the last two if the objective needs them.

    Give the parts, or write a subclass whose `build` (and `build_zoo`) makes them when they are
    first asked for; its `__init__` passes the other arguments on.

    Args:
        suite: The tasks.
        encoder: Encodes their descriptions.
        target: The frozen network, with the spec of what is generated.
        zoo: Trained weights, for reconstruction.
        zoo_tasks: The task number of each of them; the training tasks when not given.
        tasks_per_batch: Tasks in a batch (over all processes).
        samples_per_task: Samples of each.
        temperature: Draw tasks in proportion to size ** (1 / temperature), with replacement, by
            the suite's `sizes`; uniformly, without replacement, when not given.
        epoch: Batches of an epoch, after which validation runs by default.
        train_tasks: Split of the tasks to train on.
        train_wordings: Split of their descriptions.
        val_splits: Split of tasks → split of their descriptions, for validation; the first gives
            `val/score`, further ones `val/score/SPLIT`. The class's `VAL_SPLITS` when not given.
        test_splits: The same for testing; the class's `TEST_SPLITS` when not given.
        eval_batch: Networks generated at a time in validation and testing.
        seed: Seed of all draws.

    Raises:
        UsageError: A number is not positive, or a split does not exist or has no task.
    """

    # A subclass sets its own.
    VAL_SPLITS: ClassVar[dict[str, str]] = {"val": "val"}
    TEST_SPLITS: ClassVar[dict[str, str]] = {"heldout_tasks": "train"}

    cache: str | None = None  # folder of encoded descriptions

    def __init__(
        self,
        suite: TaskSuite | None = None,
        encoder: ConditionEncoder | None = None,
        target: Target | None = None,
        zoo: Weights | None = None,
        zoo_tasks: Sequence[int] | None = None,
        tasks_per_batch: int = 32,
        samples_per_task: int = 32,
        temperature: float | None = None,
        epoch: int = 250,
        train_tasks: str = "train",
        train_wordings: str = "train",
        val_splits: dict[str, str] | None = None,
        test_splits: dict[str, str] | None = None,
        eval_batch: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(suite, encoder, target, zoo, zoo_tasks, train_tasks, seed)
        for name, value in (
            ("tasks_per_batch", tasks_per_batch),
            ("samples_per_task", samples_per_task),
            ("epoch", epoch),
            ("eval_batch", eval_batch),
            ("temperature", 1 if temperature is None else temperature),
        ):
            if value <= 0:
                raise UsageError(f"{name} must be positive, not {value}")
        self.tasks_per_batch, self.samples_per_task = tasks_per_batch, samples_per_task
        self.temperature, self.epoch = temperature, epoch
        self.train_wordings = train_wordings
        self.val_splits = dict(val_splits or self.VAL_SPLITS)
        self.test_splits = dict(test_splits or self.TEST_SPLITS)
        self.eval_batch = eval_batch
        self.needs: frozenset[str] = frozenset({"inputs"})
        self._banks: dict[tuple[str, str], WordingBank] = {}
        self._device = torch.device("cpu")

    # -- Lightning -----------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Moves what all batches share to the trainer's device."""
        self._device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        self.target.to(self._device)

    def teardown(self, stage: str) -> None:
        """Gives the device's memory back."""
        self._device = torch.device("cpu")
        self.target.to(self._device)
        for bank in self._banks.values():
            bank.to(self._device)

    def train_dataloader(self) -> StepLoader:
        """Endless batches, `epoch` of them an epoch."""
        bank = self.bank(self.train_tasks, self.train_wordings)
        table = None
        positions = torch.arange(len(bank))
        if "weights" in self.needs:
            table, rows = self._zoo_rows(bank.tasks)
            positions = positions[rows[bank.tasks] >= 0]
            if not len(positions):
                raise UsageError(f"the zoo holds no task of the split {self.train_tasks!r}")
        share = own_share(self, "tasks_per_batch")
        sizes = self._sizes(bank.tasks[positions])
        repeats = sizes is not None or self.tasks_per_batch > len(positions)

        def draw(step: int) -> Batch:
            generator = seeded("batch", self.seed, step)
            chosen = positions[self._chosen(step, bank.tasks[positions], sizes, generator)]
            tasks, rows_ = bank.tasks[chosen], bank.pick(chosen, generator)
            batch = self._sample(tasks, generator, "train", share, bank.used(rows_))
            rows_, batch["tasks"] = rows_[share], tasks[share]
            if repeats:
                distinct, batch["gather"] = rows_.unique(dim=0, return_inverse=True)
                batch.update(bank.batch(distinct))
            else:
                batch.update(bank.batch(rows_))
            if table is not None:
                batch["weights"] = table[rows[batch["tasks"]].to(table.device)]
            return batch

        return StepLoader(draw, self.epoch)

    def val_dataloader(self) -> ListLoader:
        """Every task of the validation splits once, by its first description."""
        return self._eval_loader(self.val_splits, "val")

    def test_dataloader(self) -> ListLoader:
        """Every task of the test splits once, by its first description."""
        return self._eval_loader(self.test_splits, "test")

    def score(self, weights: Weights, tasks: Tensor, split: str) -> Tensor:
        """Score `[B]` of each network on its task, by the suite."""
        if weights.device.type == "cpu":
            return self.suite.score(self.target, weights, tasks, split)

        def target(part: Weights, inputs: Any) -> Any:  # the suite's own tensors are on the CPU
            return _move(self.target(part, _move(inputs, weights.device)), torch.device("cpu"))

        return self.suite.score(target, weights, tasks.cpu(), split)

    # -- pieces --------------------------------------------------------------------------------

    @property
    def memory_advice(self) -> str:
        """What to lower when training runs out of memory."""
        return (
            f"lower --data.tasks_per_batch (now {self.tasks_per_batch}) or "
            f"--data.samples_per_task (now {self.samples_per_task})"
        )

    def bank(self, tasks: str, wordings: str) -> WordingBank:
        """The encoded descriptions of a split of tasks in a split of wordings.

        Raises:
            UsageError: A split does not exist, or no task of it has a description.
        """
        if (tasks, wordings) not in self._banks:
            numbers = self._described(tasks, wordings)
            texts = self.suite.descriptions[wordings]
            self._banks[tasks, wordings] = WordingBank(self.encoder, texts, numbers, self.cache)
        return self._banks[tasks, wordings].to(self._device)

    def _described(self, tasks: str, wordings: str) -> list[int]:
        """Numbers of the tasks of a split that have a description in a split of wordings."""
        suite = self.suite
        if tasks not in suite.task_splits:
            hint = did_you_mean(tasks, suite.task_splits)
            raise UsageError(f"the suite has no split {tasks!r} of tasks.{hint}")
        if wordings not in suite.descriptions:
            hint = did_you_mean(wordings, suite.descriptions)
            raise UsageError(f"the suite has no split {wordings!r} of wordings.{hint}")
        found = [
            task for task in suite.task_splits[tasks] if len(suite.descriptions[wordings][task])
        ]
        if not found:
            raise UsageError(f"no task of the split {tasks!r} has a wording in {wordings!r}")
        return found

    def experts(self) -> Experts:
        """The zoo, with the training descriptions of its tasks; for generators made of experts."""
        return self.bank(self.train_tasks, self.train_wordings).experts(*self.zoo)

    def _sizes(self, tasks: Tensor) -> Tensor | None:
        if self.temperature is None:
            return None
        sizes = getattr(self.suite, "sizes", None)
        if sizes is None:
            raise UsageError(
                f"temperature={self.temperature} needs task sizes, and "
                f"{type(self.suite).__name__} has no `sizes`: leave it out"
            )
        return torch.as_tensor(sizes, dtype=torch.float64)[tasks] ** (1 / self.temperature)

    def _chosen(
        self, step: int, tasks: Tensor, sizes: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """`[tasks_per_batch]` positions in `tasks`, which may be drawn, for batch `step`."""
        return self._choose(len(tasks), sizes, generator)

    def _choose(self, count: int, sizes: Tensor | None, generator: torch.Generator) -> Tensor:
        """`[tasks_per_batch]` positions below `count`."""
        wanted = self.tasks_per_batch
        if sizes is not None:
            return torch.multinomial(sizes, wanted, replacement=True, generator=generator)
        if wanted <= count:
            return torch.randperm(count, generator=generator)[:wanted]
        return torch.randint(count, (wanted,), generator=generator)

    def _sample(
        self,
        tasks: Tensor,
        generator: torch.Generator,
        split: str,
        share: slice | None = None,
        avoid: Tensor | None = None,
    ) -> Batch:
        """Samples of tasks other than `avoid`, cut to this process's share of them."""
        if not self.needs - {"weights"}:
            return {}
        further = {} if avoid is None else {"avoid": avoid}
        batch = self.suite.sample(tasks, self.samples_per_task, generator, split, **further)
        if share is None or share.stop - share.start == len(tasks):
            return batch
        return {name: tree_map(partial(_rows, len(tasks), share), v) for name, v in batch.items()}

    def _zoo_rows(self, tasks: Tensor) -> tuple[Tensor, Tensor]:
        """The zoo `[M, numel]` and, for each task number, its row in it (-1: none)."""
        weights, numbers = self.zoo
        rows = torch.full((int(max(tasks.max(), numbers.max())) + 1,), -1)
        rows[numbers] = torch.arange(len(numbers))
        return weights.flat().to(self._device), rows

    def _eval_loader(self, splits: Mapping[str, str], samples: str) -> ListLoader:
        rank, world = rank_and_world(self)
        draws = []
        for number, (tasks, wordings) in enumerate(splits.items()):
            bank = self.bank(tasks, wordings)
            positions = torch.arange(len(bank))
            if len(bank) >= world:  # else every process evaluates all, so that none is idle
                positions = positions[rank::world]
            name = "" if number == 0 else tasks
            for part in positions.split(self.eval_batch):
                draws.append(partial(self._eval_batch, bank, part, name, samples))
        return ListLoader(draws)

    def _eval_batch(self, bank: WordingBank, at: Tensor, name: str, samples: str) -> Batch:
        tasks = bank.tasks[at]
        generator = seeded("evaluation", self.seed, samples, name, tasks.tolist())
        batch = self._sample(tasks, generator, samples)
        batch.update(bank.batch(bank.first(at)), tasks=tasks, name=name, split=samples)
        if "weights" in self.needs:
            table, rows = self._zoo_rows(tasks)
            if bool((rows[tasks] >= 0).all()):
                batch["weights"] = table[rows[tasks].to(table.device)]
        return batch


def _rows(tasks: int, share: slice, value: Any) -> Any:
    """A process's rows of a tensor with a fixed number of rows for each task."""
    if not isinstance(value, Tensor) or value.dim() == 0 or value.shape[0] % tasks:
        return value
    block = value.shape[0] // tasks
    return value[share.start * block : share.stop * block]


def _move(value: Any, device: torch.device) -> Any:
    return tree_map(lambda t: t.to(device) if isinstance(t, Tensor) else t, value)
