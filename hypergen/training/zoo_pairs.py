"""Pairs of checkpoints of one run: what a network is, and what it should become."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.seeding import generator as seeded
from hypergen._utils.seeding import stable_seed
from hypergen.conditions import ConditionEncoder, FusedEncoder, MetricEncoder, WeightsEncoder
from hypergen.specs import TokenLayout
from hypergen.training.bank import Batch, ListLoader, StepLoader
from hypergen.training.processes import own_share, rank_and_world
from hypergen.training.zoo_base import CheckpointDataModule
from hypergen.training.zoo_rows import concerns, open_zoo
from hypergen.zoo.canonical import Symmetry, symmetry_of
from hypergen.zoo.canonical.augment import random_index
from hypergen.zoo.reading import metric_values, split
from hypergen.zoo.reading.record import ZooRecord
from hypergen.zoo.store import Zoo


class ZooPairsDataModule(CheckpointDataModule):
    """Two checkpoints of one run: from the one and two metric values, the other.

    The training data of G.pt (Peebles et al., "Learning to Learn with Generative Models of Neural
    Network Checkpoints", 2022, arXiv:2209.12892). The condition is `{"weights": current, "metric":
    [current value, wanted value]}`, the target the checkpoint that has the wanted value. Both are
    permuted by one and the same random permutation of hidden units, which changes neither function.

    Splits are by run. Metrics of the test split are refused: a prompt is an input, and the test
    split would leak through it (the published prompts are losses on test data).

    A batch holds `raw` (`{"weights": [B, numel], "metric": [B, 2]}`), `weights` `[B, numel]` and
    `tasks` `[B]`, numbers of runs.

    Args:
        path: The folder of a zoo with several checkpoints a run.
        metric: What is prompted for, as `"split.name"`: `"val.loss"`, `"train.accuracy"`, ….
        log: Whether its logarithm is taken; by default for losses.
        architecture: Key of the architecture, when the zoo has several.
        pairs: `"later"`: the target comes after the current checkpoint; `"any"`: in both orders,
            so that worse values can be asked for too.
        permute: Whether training pairs are permuted at random.
        size: Width of a token of weights in the condition.
        dim: Width of the condition.
        fractions: Shares of runs for training, validation and test.
        heldout: Names of the runs of the test split.
        batch_size: Pairs of a batch (over all processes).
        epoch: Batches of an epoch, after which validation runs by default.
        seed: Seed of splits and draws.

    Raises:
        UsageError: A number is not positive, or the metric is of the test split.
    """

    def __init__(
        self,
        path: str,
        metric: str = "val.loss",
        log: bool | None = None,
        architecture: str | None = None,
        pairs: Literal["later", "any"] = "later",
        permute: bool = True,
        size: int = 64,
        dim: int = 128,
        fractions: dict[str, float] | None = None,
        heldout: list[str] | None = None,
        batch_size: int = 64,
        epoch: int = 250,
        seed: int = 0,
    ) -> None:
        super().__init__(path, architecture, fractions, heldout, batch_size, epoch, seed)
        if size <= 0:
            raise UsageError(f"size must be positive, not {size}")
        if metric.split(".")[0] == "test":
            raise UsageError(
                f"metric {metric!r} is of the test split, which would leak through the prompt: "
                "take 'val' or 'train'"
            )
        if pairs not in ("later", "any"):
            raise UsageError(f"pairs is 'later' or 'any', not {pairs!r}")
        self.metric = metric
        self.log = metric.endswith("loss") if log is None else log
        self.pairs, self.permute, self.size, self.dim = pairs, permute, size, dim

    # -- parts, made when they are first asked for ---------------------------------------------

    @property
    def splits(self) -> dict[str, Zoo]:
        """`train`, `val` and `test` views of the zoo, which share no run, in order of run and step.

        Raises:
            RunError: The zoo is missing or damaged.
            UsageError: Too few runs have two checkpoints with the metric.
        """
        if "splits" not in self._made:
            zoo = open_zoo(self.path, self.architecture)
            zoo = zoo[np.flatnonzero(np.isfinite(metric_values(zoo, self.metric)))]
            count: dict[str, int] = {}
            for row in zoo.rows:
                count[row.run] = count.get(row.run, 0) + 1
            order = sorted(
                (i for i, row in enumerate(zoo.rows) if count[row.run] > 1),
                key=lambda i: (zoo.rows[i].run, zoo.rows[i].step),
            )
            if not order:
                raise UsageError(
                    f"{self.path} has no run with two checkpoints that have {self.metric}: build "
                    "the zoo with save_steps"
                )
            zoo = zoo[order]
            self._made["splits"] = split(zoo, "run", self.fractions, self.seed, self.heldout)
        found: dict[str, Zoo] = self._made["splits"]
        return found

    @property
    def symmetry(self) -> Symmetry:
        """Permutations that leave the networks' functions unchanged."""
        if "symmetry" not in self._made:
            architecture = self.splits["train"].architecture
            self._made["symmetry"] = symmetry_of(self.spec, architecture.config)
        symmetry: Symmetry = self._made["symmetry"]
        return symmetry

    @property
    def encoder(self) -> ConditionEncoder:
        """What encodes weights and metric values; it knows the training split's statistics."""
        if "encoder" not in self._made:
            weights = WeightsEncoder.from_layout(
                TokenLayout(self.spec, self.size), self.dim, pool=True
            )
            weights.fit(self.moments.slot_mean.float(), self.moments.slot_std.float())
            metric = MetricEncoder(("current", "wanted"), self.dim, log=self.log)
            metric.fit(torch.from_numpy(metric_values(self.splits["train"], self.metric)))
            parts = {"weights": weights, "metric": metric}
            self._made["encoder"] = FusedEncoder(parts, self.dim)
        encoder: ConditionEncoder = self._made["encoder"]
        return encoder

    def training_weights(self) -> Tensor:
        """`[N, numel]`, the training checkpoints, as they are stored.

        Warns if they are few, or some are equal.
        """
        zoo = self.splits["train"]
        flat = zoo.flat()
        for concern in concerns(zoo, flat):
            warnings.warn(concern, stacklevel=2)
        return flat.to(torch.get_default_dtype())

    # -- Lightning -----------------------------------------------------------------------------

    def train_dataloader(self) -> StepLoader:
        """Endless batches, `epoch` of them an epoch."""
        zoo, (starts, counts) = self.splits["train"], self._runs("train")
        rank, _ = rank_and_world(self)
        share = own_share(self, "batch_size")

        def draw(step: int) -> Batch:
            random = seeded("zoo pairs", self.seed, step)
            runs = torch.randint(len(starts), (self.batch_size,), generator=random)
            current, target = _two_of(counts[runs], random)
            if self.pairs == "later":
                current, target = torch.minimum(current, target), torch.maximum(current, target)
            at = starts[runs]
            seed = stable_seed("zoo pairs", self.seed, step, rank) if self.permute else None
            return self._batch(zoo, runs[share], (at + current)[share], (at + target)[share], seed)

        return StepLoader(draw, self.epoch)

    def save(self, run: Path) -> None:
        """Writes which checkpoints are in which split, for `hypergen evaluate`."""
        settings = {"metric": self.metric, "log": self.log}
        ZooRecord("pairs", self.splits, settings).save(run)

    # -- pieces --------------------------------------------------------------------------------

    def _runs(self, name: str) -> tuple[Tensor, Tensor]:
        """First checkpoint and number of checkpoints of each run, `[R]` each."""
        runs = [row.run for row in self.splits[name].rows]
        _, counts = np.unique(runs, return_counts=True)  # sorted by run, as the view is
        counts_ = torch.from_numpy(counts)
        return counts_.cumsum(0) - counts_, counts_

    def _batch(
        self, zoo: Zoo, runs: Tensor, current: Tensor, target: Tensor, seed: int | None
    ) -> Batch:
        values = self._values(zoo)
        both = zoo.flat(torch.stack([current, target], 1).flatten()).unflatten(0, (-1, 2))
        if seed is not None:
            index = random_index(self.symmetry, len(both), seed)
            both = both.gather(2, index[:, None].expand_as(both))
        both = both.to(self._device, torch.get_default_dtype())
        metric = torch.stack([values[current], values[target]], 1).to(self._device)
        return {
            "raw": {"weights": both[:, 0], "metric": metric},
            "weights": both[:, 1],
            "tasks": runs.to(self._device),
        }

    def _values(self, zoo: Zoo) -> Tensor:
        """`[N]`, the metric of every checkpoint of a split."""
        cache = self._made.setdefault("values", {})
        if id(zoo) not in cache:
            cache[id(zoo)] = torch.from_numpy(metric_values(zoo, self.metric)).float()
        values: Tensor = cache[id(zoo)]
        return values

    def _eval_loader(self, name: str) -> ListLoader:
        """Every pair of a split's runs once, as it is stored."""
        zoo, (starts, counts) = self.splits[name], self._runs(name)
        rank, world = rank_and_world(self)
        most = int(counts.max())
        current, target = torch.triu_indices(most, most, 1)
        run = torch.arange(len(starts)).repeat_interleave(len(current))
        current, target = current.repeat(len(starts)), target.repeat(len(starts))
        there = target < counts[run]
        run, current, target = run[there], current[there], target[there]
        if len(run) >= world:
            run, current, target = run[rank::world], current[rank::world], target[rank::world]

        def draw(part: Tensor) -> Batch:
            at = starts[run[part]]
            pair = at + current[part], at + target[part]
            return {**self._batch(zoo, run[part], *pair, None), "split": name}

        parts = torch.arange(len(run)).split(self.batch_size)
        return ListLoader([partial(draw, part) for part in parts])


def _two_of(counts: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two different numbers below each of `[B]` counts of at least 2."""
    draw = torch.rand(2, len(counts), generator=random, dtype=torch.float64)
    first = (draw[0] * counts).long()
    second = (draw[1] * (counts - 1)).long()
    return first, second + (second >= first)
