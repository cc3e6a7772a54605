"""What all data modules that read the checkpoints of a zoo have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen.specs import WeightSpec
from hypergen.training.bank import ListLoader
from hypergen.zoo.reading import Moments, compute_moments
from hypergen.zoo.store import Zoo

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


class CheckpointDataModule(LightningDataModule):
    """Splits of a zoo, the statistics of the training split, and the loaders of the others.

    Args:
        path: The folder of the zoo.
        architecture: Key of the architecture, when the zoo has several.
        fractions: Shares of training, validation and test; the key names are fixed.
        heldout: Names of what the test split holds.
        batch_size: Samples of a batch (over all processes).
        epoch: Batches of an epoch, after which validation runs by default.
        seed: Seed of splits and draws.

    Raises:
        UsageError: A number is not positive, or a share has another name.
    """

    def __init__(
        self,
        path: str,
        architecture: str | None,
        fractions: dict[str, float] | None,
        heldout: list[str] | None,
        batch_size: int,
        epoch: int,
        seed: int,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("epoch", epoch)):
            if value <= 0:
                raise UsageError(f"{name} must be positive, not {value}")
        fractions = FRACTIONS if fractions is None else fractions
        if set(fractions) != set(FRACTIONS):
            raise UsageError(f"fractions has the keys train, val and test, not {list(fractions)}")
        self.path, self.architecture = path, architecture
        self.fractions, self.heldout = fractions, heldout
        self.batch_size, self.epoch, self.seed = batch_size, epoch, seed
        self.needs: frozenset[str] = frozenset({"weights"})
        self._made: dict[str, Any] = {}
        self._device = torch.device("cpu")

    # -- parts, made when they are first asked for ---------------------------------------------

    @property
    @abstractmethod
    def splits(self) -> dict[str, Zoo]:
        """`train`, `val` and `test` views of the zoo."""

    @property
    def spec(self) -> WeightSpec:
        """What is generated: the spec of the checkpoints."""
        return self.splits["train"].spec

    @property
    def moments(self) -> Moments:
        """Mean and spread of the training checkpoints, in one pass over the files."""
        if "moments" not in self._made:
            self._made["moments"] = self._moments()
        moments: Moments = self._made["moments"]
        return moments

    def _moments(self) -> Moments:
        return compute_moments(self.splits["train"])

    @property
    def mean(self) -> Tensor:
        """`[numel]`, mean of the training checkpoints."""
        return self.moments.mean.float()

    @property
    def std(self) -> Tensor:
        """`[numel]`, standard deviation of the training checkpoints."""
        return self.moments.std().float()

    # -- Lightning -----------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Notes the trainer's device, and refuses objectives that need more than weights."""
        if self.needs - {"weights"}:
            raise UsageError(
                f"a zoo provides stored weights, and this objective also needs "
                f"{', '.join(sorted(self.needs - {'weights'}))}: choose 'reconstruction' or "
                "'denoising'"
            )
        self._device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def val_dataloader(self) -> ListLoader:
        """Everything of the validation split once."""
        return self._eval_loader("val")

    def test_dataloader(self) -> ListLoader:
        """Everything of the test split once."""
        return self._eval_loader("test")

    @abstractmethod
    def _eval_loader(self, name: str) -> ListLoader:
        """Everything of a split once, this process's share of it."""
