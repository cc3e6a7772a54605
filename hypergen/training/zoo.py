"""Batches of stored checkpoints and the descriptions of their tasks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.seeding import generator as seeded
from hypergen.conditions import ConditionEncoder, text_encoder_by_name
from hypergen.generators.library import Experts
from hypergen.specs import WeightSpec
from hypergen.training.bank import Batch, ListLoader, StepLoader, WordingBank
from hypergen.zoo.reading import (
    Moments,
    compute_moments,
    filter_metric,
    sampling_weights,
    split,
)
from hypergen.zoo.store import Zoo

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


class ZooDataModule(LightningDataModule):
    """Checkpoints of a zoo on disk, each with a description of its task, for reconstruction.

    The zoo is mapped, not loaded: a batch copies its own rows and nothing else. Training batch i is
    a function of `seed` and i alone, whatever the number of processes. Descriptions are encoded
    once.

    A batch holds `condition` (`[U]` distinct conditions; `raw` descriptions instead when the
    encoder is trained too), `gather` (`[B]`, which of them each network has), `tasks` (`[B]`) and
    `weights` (`[B, numel]`).

    Args:
        path: The folder of the zoo.
        encoder: `"text"` (the sentence encoder if there is one, else hashed n-grams with a
            warning), `"hashing"`, or an encoder.
        text_layer: Hidden state of the sentence encoder that is read token by token.
        architecture: Key of the architecture, when the zoo has several.
        step: Which checkpoints of a run: `"last"`, `"all"`, or a number of steps.
        split_by: What validation and test do not share with training: `"task"`, `"family"` or
            `"run"`.
        fractions: Shares of training, validation and test; the key names are fixed.
        heldout: Names of the tasks, families or runs of the test split.
        metric: Metric that checkpoints are filtered and drawn by, such as `"test.accuracy"`.
        at_least: Training checkpoints below it are left out.
        temperature: Training checkpoints are drawn by softmax(metric / temperature); all alike
            when not given.
        batch_size: Checkpoints of a batch (over all processes).
        epoch: Batches of an epoch, after which validation runs by default.
        seed: Seed of splits and draws.

    Raises:
        UsageError: A number is not positive, or a metric is needed and not given.
    """

    def __init__(
        self,
        path: str,
        encoder: Literal["text", "hashing"] | ConditionEncoder = "text",
        text_layer: int = 4,
        architecture: str | None = None,
        step: Literal["last", "all"] | int = "last",
        split_by: Literal["task", "family", "run"] = "task",
        fractions: dict[str, float] | None = None,
        heldout: list[str] | None = None,
        metric: str | None = None,
        at_least: float | None = None,
        temperature: float | None = None,
        batch_size: int = 64,
        epoch: int = 250,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("epoch", epoch)):
            if value <= 0:
                raise UsageError(f"{name} must be positive, not {value}")
        if metric is None and (at_least is not None or temperature is not None):
            raise UsageError("at_least and temperature need metric=, such as 'test.accuracy'")
        fractions = FRACTIONS if fractions is None else fractions
        if set(fractions) != set(FRACTIONS):
            raise UsageError(f"fractions has the keys train, val and test, not {list(fractions)}")
        self.path, self.architecture, self.step = path, architecture, step
        self.encoder_name, self.text_layer = encoder, text_layer
        self.split_by, self.fractions, self.heldout = split_by, fractions, heldout
        self.metric, self.at_least, self.temperature = metric, at_least, temperature
        self.batch_size, self.epoch, self.seed = batch_size, epoch, seed
        self.needs: frozenset[str] = frozenset({"weights"})
        self._made: dict[str, Any] = {}
        self._device = torch.device("cpu")

    # -- parts, made when they are first asked for ---------------------------------------------

    @property
    def splits(self) -> dict[str, Zoo]:
        """`train`, `val` and `test` views of the zoo, which share no task, family or run.

        Raises:
            RunError: The zoo is missing or damaged.
            UsageError: There are too few tasks or runs to split, or none that has a description.
        """
        if "splits" not in self._made:
            zoo = Zoo(self.path)
            if self.architecture is not None or len(zoo.architectures) > 1:
                zoo = zoo.select(architecture=self.architecture)
                _ = zoo.spec  # says which architectures there are when none is chosen
            if self.step != "all":
                zoo = zoo.select(step=self.step)
            described = [i for i, row in enumerate(zoo.rows) if self._descriptions(zoo, row.task)]
            if not described:
                raise UsageError(f"{self.path} has no checkpoint whose task has a description")
            parts = split(zoo[described], self.split_by, self.fractions, self.seed, self.heldout)
            if self.at_least is not None:
                assert self.metric is not None
                parts["train"] = filter_metric(parts["train"], self.metric, at_least=self.at_least)
            self._made["splits"] = parts
        found: dict[str, Zoo] = self._made["splits"]
        return found

    @staticmethod
    def _descriptions(zoo: Zoo, task: str) -> tuple[str, ...]:
        return zoo.tasks[task].descriptions if task else ()

    @property
    def spec(self) -> WeightSpec:
        """What is generated: the spec of the checkpoints."""
        return self.splits["train"].spec

    @property
    def encoder(self) -> ConditionEncoder:
        """What encodes the descriptions."""
        if "encoder" not in self._made:
            made = text_encoder_by_name(self.encoder_name, self.text_layer)
            self._made["encoder"] = made
        encoder: ConditionEncoder = self._made["encoder"]
        return encoder

    @property
    def moments(self) -> Moments:
        """Mean and spread of the training checkpoints, in one pass over the files."""
        if "moments" not in self._made:
            self._made["moments"] = compute_moments(self.splits["train"])
        moments: Moments = self._made["moments"]
        return moments

    @property
    def mean(self) -> Tensor:
        """`[numel]`, mean of the training checkpoints."""
        return self.moments.mean.float()

    @property
    def std(self) -> Tensor:
        """`[numel]`, standard deviation of the training checkpoints."""
        return self.moments.std().float()

    def experts(self) -> Experts:
        """The training checkpoints, all in memory, with the descriptions of their tasks."""
        bank, place = self._bank("train")
        return bank.experts(self.splits["train"].weights(), place)

    # -- Lightning -----------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Notes the trainer's device, and refuses objectives that need more than weights."""
        if self.needs - {"weights"}:
            raise UsageError(
                f"a zoo provides stored weights, and this objective also needs "
                f"{', '.join(sorted(self.needs - {'weights'}))}: choose 'reconstruction'"
            )
        self._device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def train_dataloader(self) -> StepLoader:
        """Endless batches, `epoch` of them an epoch."""
        zoo = self.splits["train"]
        bank, place = self._bank("train")
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        if self.batch_size % world:
            raise UsageError(
                f"batch_size={self.batch_size} cannot be split over {world} processes: take a "
                f"multiple of {world}"
            )
        probability = None
        if self.temperature is not None:
            assert self.metric is not None
            probability = sampling_weights(zoo, self.metric, temperature=self.temperature)

        def draw(step: int) -> Batch:
            generator = seeded("zoo batch", self.seed, step)
            if probability is not None:
                rows = torch.multinomial(
                    probability, self.batch_size, replacement=True, generator=generator
                )
            elif self.batch_size <= len(zoo):
                rows = torch.randperm(len(zoo), generator=generator)[: self.batch_size]
            else:
                rows = torch.randint(len(zoo), (self.batch_size,), generator=generator)
            wording = bank.pick(place[rows], generator)
            share = slice(rank * self.batch_size // world, (rank + 1) * self.batch_size // world)
            return self._batch(zoo, bank, rows[share], wording[share], place)

        return StepLoader(draw, self.epoch)

    def val_dataloader(self) -> ListLoader:
        """Every checkpoint of the validation split once, by its task's first description."""
        return self._eval_loader("val")

    def test_dataloader(self) -> ListLoader:
        """Every checkpoint of the test split once, by its task's first description."""
        return self._eval_loader("test")

    def save(self, run: Path) -> None:
        """A zoo has no suite to write into a run folder."""

    # -- pieces --------------------------------------------------------------------------------

    def _bank(self, name: str) -> tuple[WordingBank, Tensor]:
        """The encoded descriptions of a split's tasks, and each row's place among these tasks."""
        zoo = self.splits[name]
        tasks = sorted({row.task for row in zoo.rows})
        number = {task: i for i, task in enumerate(tasks)}
        descriptions = [list(zoo.tasks[task].descriptions) for task in tasks]
        bank = WordingBank(self.encoder, descriptions, range(len(tasks))).to(self._device)
        return bank, torch.tensor([number[row.task] for row in zoo.rows])

    def _batch(
        self, zoo: Zoo, bank: WordingBank, rows: Tensor, wording: Tensor, place: Tensor
    ) -> Batch:
        distinct, gather = wording.unique(return_inverse=True)
        weights = zoo.flat(rows).to(self._device, torch.get_default_dtype())
        return {
            **bank.batch(distinct),
            "gather": gather.to(self._device),
            "tasks": place[rows].to(self._device),
            "weights": weights,
        }

    def _eval_loader(self, name: str) -> ListLoader:
        zoo = self.splits[name]
        bank, place = self._bank(name)
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        rows = torch.arange(len(zoo))
        rows = rows[rank::world] if len(rows) >= world else rows

        def draw(part: Tensor) -> Batch:
            batch = self._batch(zoo, bank, part, bank.first(place[part]), place)
            return {**batch, "split": name}

        return ListLoader([partial(draw, part) for part in rows.split(self.batch_size)])
