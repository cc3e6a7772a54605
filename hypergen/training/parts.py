"""The lasting parts of a data module: suite, encoder, target and zoo, made when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.seeding import stable_seed
from hypergen.conditions import ConditionEncoder
from hypergen.specs import Weights, WeightSpec
from hypergen.targets import Target
from hypergen.zoo import TaskSuite

Parts = tuple[TaskSuite, ConditionEncoder, Target]


class TaskParts(LightningDataModule):
    """Suite, encoder, target and zoo: given, or built once when they are first asked for.

    Args:
        suite: The tasks.
        encoder: Encodes their descriptions.
        target: The frozen network, with the spec of what is generated.
        zoo: Trained weights.
        zoo_tasks: The task number of each of them; the training tasks when not given.
        train_tasks: Split of the training tasks.
        seed: Seed of what is built.
    """

    def __init__(
        self,
        suite: TaskSuite | None = None,
        encoder: ConditionEncoder | None = None,
        target: Target | None = None,
        zoo: Weights | None = None,
        zoo_tasks: Sequence[int] | None = None,
        train_tasks: str = "train",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._given = (suite, encoder, target)
        self._given_zoo = (zoo, zoo_tasks)
        self.train_tasks, self.seed = train_tasks, seed
        self._parts: Parts | None = None
        self._zoo: tuple[Weights, Tensor] | None = None

    def build(self) -> Parts:
        """Makes suite, encoder and target, once; the same ones for the same `seed`.

        Raises:
            UsageError: They were neither given nor does the subclass make them.
        """
        suite, encoder, target = self._given
        if suite is None or encoder is None or target is None:
            raise UsageError(
                f"{type(self).__name__} needs suite, encoder and target, or a build() that makes "
                "them"
            )
        return suite, encoder, target

    def build_zoo(self) -> tuple[Weights, Sequence[int] | Tensor]:
        """Makes the trained weights and their task numbers, once, when an objective needs them.

        Raises:
            UsageError: They were neither given nor does the subclass make them.
        """
        zoo, tasks = self._given_zoo
        if zoo is None:
            raise UsageError(
                "reconstruction needs trained weights: give zoo= to the data module, or choose "
                "the objective 'task'"
            )
        return zoo, self.suite.task_splits[self.train_tasks] if tasks is None else tasks

    def save(self, run: Path) -> None:
        """Writes into a run folder what later commands need beside the generator: the suite."""
        try:
            self.suite.save(run)
        except UsageError:  # a suite that was made by hand has no recipe to save
            return

    def _built(self) -> Parts:
        if self._parts is None:
            # Whatever building draws, what follows it does not depend on whether it was cached.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(stable_seed("build", self.seed))
                self._parts = self.build()
        return self._parts

    @property
    def suite(self) -> TaskSuite:
        """The tasks."""
        return self._built()[0]

    @property
    def encoder(self) -> ConditionEncoder:
        """What encodes the descriptions."""
        return self._built()[1]

    @property
    def target(self) -> Target:
        """The frozen network."""
        return self._built()[2]

    @property
    def spec(self) -> WeightSpec:
        """What is generated."""
        return self.target.spec

    @property
    def zoo(self) -> tuple[Weights, Tensor]:
        """Trained weights of batch size M, and their task numbers `[M]`."""
        if self._zoo is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(stable_seed("zoo", self.seed))
                weights, tasks = self.build_zoo()
            numbers = torch.as_tensor(tasks, dtype=torch.long)
            if numbers.shape != (len(weights),):
                raise UsageError(f"{len(weights)} weights in the zoo have {len(numbers)} tasks")
            self._zoo = (weights.detach(), numbers)
        return self._zoo

    @property
    def mean(self) -> Tensor:
        """`[numel]`, mean of the trained weights."""
        return self.zoo[0].flat().mean(0)

    @property
    def std(self) -> Tensor:
        """`[numel]`, standard deviation of the trained weights."""
        return self.zoo[0].flat().std(0, correction=0)
