"""What the networks of a stack learn: samples, targets, loss and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen.zoo.store import Task


class Problem(ABC):
    """A family of tasks over one set of inputs.

    All tasks share the inputs of a split and differ in what is to be answered, so that the inputs
    of any number of networks are one gather from one array.

    Attributes:
        splits: Names of the splits; `"train"` is what is learned from.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    @property
    @abstractmethod
    def tasks(self) -> dict[str, Task]:
        """Name → task; a task's number is its position."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Numbers that a network puts out for one sample."""

    @abstractmethod
    def inputs(self, split: str) -> Tensor:
        """Inputs `[N, *shape]` of a split, float32, the same for all tasks."""

    @abstractmethod
    def targets(self, split: str, tasks: Tensor, index: Tensor) -> Tensor:
        """What is to be answered.

        Args:
            split: Name of the split.
            tasks: `[M]` task numbers.
            index: `[..., M, B]` sample numbers.

        Returns:
            `[..., M, B]` (or more axes at the end).
        """

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of one network, from outputs `[B, outputs]` and targets `[B, …]`."""

    @abstractmethod
    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Scores `[M, N]` of every sample by name, from outputs `[M, N, outputs]`."""

    def summary(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """Metrics `[M]` from the means of the scores `[M]`; the means themselves by default."""
        return means

    def output_gradient(self, outputs: Tensor, targets: Tensor, out: Tensor) -> bool:
        """Writes the gradient of every network's mean loss with respect to its outputs.

        Args:
            outputs: `[M, outputs, B]`: samples last, so that reductions over outputs run along
                whole rows of memory.
            targets: `[M, B, …]`.
            out: `[M, outputs, B]`, may be `outputs` itself.

        Returns:
            Whether it is written; False (the default) leaves it to automatic differentiation.
        """
        return False

    def check_split(self, split: str) -> None:
        """Checks the name of a split.

        Raises:
            UsageError: There is none of that name.
        """
        if split not in self.splits:
            raise UsageError(f"no split {split!r}.{did_you_mean(split, self.splits)}")
