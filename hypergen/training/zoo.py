"""Batches of stored checkpoints and the descriptions of their tasks."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.seeding import generator as seeded
from hypergen.conditions import ConditionEncoder, NoCondition, text_encoder_by_name
from hypergen.generators.library import Experts
from hypergen.training.bank import Batch, ListLoader, StepLoader, WordingBank
from hypergen.training.processes import own_share, rank_and_world
from hypergen.training.zoo_base import CheckpointDataModule
from hypergen.training.zoo_rows import ZooRows, open_splits
from hypergen.zoo.reading import Moments, sampling_weights
from hypergen.zoo.reading.record import ZooRecord
from hypergen.zoo.store import Row, Zoo

_LEAK = "what is generated will look better on the test samples; take 'val' or 'train'"


class ZooDataModule(CheckpointDataModule):
    """Checkpoints of a zoo on disk, each with a description of its task, for reconstruction.

    The zoo is mapped, not loaded: a batch copies its own rows and nothing else. Training batch i is
    a function of `seed` and i alone, whatever the number of processes. Descriptions are encoded
    once. With the encoder `none` descriptions are neither needed nor read.

    A batch holds `condition` (`[U]` distinct conditions; `raw` descriptions instead when the
    encoder is trained too), `gather` (`[B]`, which of them each network has), `tasks` (`[B]`) and
    `weights` (`[B, numel]`).

    Networks whose hidden units are permuted have other weights and the same function. `canonical`
    brings all to one order before anything else; `augment` draws another order for every draw.

    Args:
        path: The folder of the zoo.
        encoder: `"text"` (the sentence encoder if there is one, else hashed n-grams with a
            warning), `"hashing"`, `"none"` for generators without a condition, or an encoder.
        text_layer: Hidden state of the sentence encoder that is read token by token.
        architecture: Key of the architecture, when the zoo has several.
        step: Which checkpoints of a run: `"last"`, `"all"`, or a number of steps.
        split_by: What validation and test do not share with training: `"task"`, `"family"` or
            `"run"`.
        fractions: Shares of training, validation and test; the key names are fixed.
        heldout: Names of the tasks, families or runs of the test split.
        metric: Metric that checkpoints are filtered and drawn by, such as `"val.accuracy"`; one
            of the test split is warned of, since it lets test samples choose what is learned.
        at_least: Training checkpoints below it are left out.
        temperature: Training checkpoints are drawn by softmax(metric / temperature); all alike
            when not given.
        canonical: Bring hidden units to the order that fits a typical training network.
        augment: Permute hidden units at random, for each draw on its own.
        batch_size: Checkpoints of a batch (over all processes).
        epoch: Batches of an epoch, after which validation runs by default.
        seed: Seed of splits and draws.

    Raises:
        UsageError: A number is not positive, or a metric is needed and not given.
    """

    def __init__(
        self,
        path: str,
        encoder: Literal["text", "hashing", "none"] | ConditionEncoder = "text",
        text_layer: int = 4,
        architecture: str | None = None,
        step: Literal["last", "all"] | int = "last",
        split_by: Literal["task", "family", "run"] = "task",
        fractions: dict[str, float] | None = None,
        heldout: list[str] | None = None,
        metric: str | None = None,
        at_least: float | None = None,
        temperature: float | None = None,
        canonical: bool = False,
        augment: bool = False,
        batch_size: int = 64,
        epoch: int = 250,
        seed: int = 0,
    ) -> None:
        super().__init__(path, architecture, fractions, heldout, batch_size, epoch, seed)
        if metric is None and (at_least is not None or temperature is not None):
            raise UsageError("at_least and temperature need metric=, such as 'val.accuracy'")
        if metric is not None and metric.startswith("test."):
            warnings.warn(f"{metric} chooses training checkpoints: {_LEAK}", stacklevel=2)
        self.step, self.split_by = step, split_by
        self.encoder_name, self.text_layer = encoder, text_layer
        self.metric, self.at_least, self.temperature = metric, at_least, temperature
        self.canonical, self.augment = canonical, augment

    # -- parts, made when they are first asked for ---------------------------------------------

    @property
    def splits(self) -> dict[str, Zoo]:
        """`train`, `val` and `test` views of the zoo, which share no task, family or run.

        Raises:
            RunError: The zoo is missing or damaged.
            UsageError: There are too few tasks or runs to split, or none that has a description.
        """
        if "splits" not in self._made:
            self._made["splits"] = open_splits(
                self.path,
                architecture=self.architecture,
                step=self.step,
                usable=None if self._unconditional else self._described,
                by=self.split_by,
                fractions=self.fractions,
                heldout=self.heldout,
                metric=self.metric,
                at_least=self.at_least,
                seed=self.seed,
            )
        found: dict[str, Zoo] = self._made["splits"]
        return found

    @property
    def _unconditional(self) -> bool:
        return self.encoder_name == "none" or isinstance(self.encoder_name, NoCondition)

    def _described(self, zoo: Zoo, row: Row) -> bool:
        return bool(self._descriptions(zoo, row.task))

    def _descriptions(self, zoo: Zoo, task: str) -> tuple[Any, ...]:
        """What a task is described by: each is an input of the encoder."""
        return zoo.tasks[task].descriptions if task else ()

    @property
    def encoder(self) -> ConditionEncoder:
        """What encodes the descriptions."""
        if "encoder" not in self._made:
            name = self.encoder_name
            made = NoCondition() if name == "none" else text_encoder_by_name(name, self.text_layer)
            self._made["encoder"] = made
        encoder: ConditionEncoder = self._made["encoder"]
        return encoder

    def _moments(self) -> Moments:
        if self.canonical or self.augment:
            return Moments.of(self.spec, self.rows.training())
        return super()._moments()

    @property
    def rows(self) -> ZooRows:
        """The numbers of each split."""
        if "rows" not in self._made:
            self._made["rows"] = ZooRows(self.splits, self.canonical, self.augment)
        rows: ZooRows = self._made["rows"]
        return rows

    def training_weights(self) -> Tensor:
        """`[N, numel]`, all training checkpoints, for generators that sample.

        Warns, once, if they are few, or some are equal.
        """
        self.rows.warn()
        return self.rows.training().to(torch.get_default_dtype())

    def experts(self) -> Experts:
        """The training checkpoints, all in memory, with the descriptions of their tasks.

        Raises:
            UsageError: The encoder is `none`.
        """
        bank, place = self._bank("train")
        if bank is None:
            raise UsageError("experts are told apart by descriptions, which encoder='none' ignores")
        weights = self.splits["train"].weights()
        if self.canonical:
            weights = self.spec.from_flat(self.rows.flat("train"))
        return bank.experts(weights, place)

    # -- Lightning -----------------------------------------------------------------------------

    def train_dataloader(self) -> StepLoader:
        """Endless batches, `epoch` of them an epoch."""
        zoo = self.splits["train"]
        bank, place = self._bank("train")
        share = own_share(self, "batch_size")
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
            wording = None if bank is None else bank.pick(place[rows], generator)
            seeds = (
                torch.randint(1 << 62, rows.shape, generator=generator) if self.augment else None
            )
            own, seeds = (None if x is None else x[share] for x in (wording, seeds))
            return self._batch("train", bank, rows[share], own, place, seeds)

        return StepLoader(draw, self.epoch)

    def save(self, run: Path) -> None:
        """Writes which checkpoints are in which split, and how they are read."""
        ZooRecord(self._kind(), self.splits, self._settings()).save(run)

    def _kind(self) -> str:
        """What `hypergen evaluate` takes the conditions for."""
        return "none" if self._unconditional else "text"

    def _settings(self) -> dict[str, Any]:
        return {"canonical": self.canonical, "augment": self.augment, "metric": self.metric}

    # -- pieces --------------------------------------------------------------------------------

    def _bank(self, name: str) -> tuple[WordingBank | None, Tensor]:
        """The encoded descriptions of a split's tasks, and each row's place among these tasks.

        There are no descriptions if the encoder is `none`.
        """
        zoo = self.splits[name]
        tasks = sorted({row.task for row in zoo.rows})
        number = {task: i for i, task in enumerate(tasks)}
        place = torch.tensor([number[row.task] for row in zoo.rows])
        if self._unconditional:
            return None, place
        descriptions = [list(self._descriptions(zoo, task)) for task in tasks]
        bank = WordingBank(self.encoder, descriptions, range(len(tasks))).to(self._device)
        return bank, place

    def _batch(
        self,
        name: str,
        bank: WordingBank | None,
        rows: Tensor,
        wording: Tensor | None,
        place: Tensor,
        seeds: Tensor | None = None,
    ) -> Batch:
        if bank is None or wording is None:
            known = {"condition": self.encoder(1).to(self._device)}
            gather = torch.zeros(len(rows), dtype=torch.long)
        else:
            distinct, gather = wording.unique(return_inverse=True)
            known = bank.batch(distinct)
        flat = self.rows.flat(name, rows)
        flat = flat if seeds is None else self.rows.permuted(flat, seeds)
        return {
            **known,
            "gather": gather.to(self._device),
            "tasks": place[rows].to(self._device),
            "weights": flat.to(self._device, torch.get_default_dtype()),
        }

    def _eval_loader(self, name: str) -> ListLoader:
        """Every checkpoint of a split once, by its task's first description."""
        bank, place = self._bank(name)
        rank, world = rank_and_world(self)
        rows = torch.arange(len(place))
        rows = rows[rank::world] if len(rows) >= world else rows

        def draw(part: Tensor) -> Batch:
            first = None if bank is None else bank.first(place[part])
            return {**self._batch(name, bank, part, first, place), "split": name}

        return ListLoader([partial(draw, part) for part in rows.split(self.batch_size)])
