"""Small networks scored and trained on in stacks, on the problem that their zoo was made for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hypergen._utils.errors import RunError, UsageError
from hypergen._utils.threads import flush_denormals
from hypergen.evaluation.networks import evaluate_networks, recipe_of, task_numbers
from hypergen.specs import WeightSpec
from hypergen.zoo.ensemble.member import Member
from hypergen.zoo.ensemble.optimizers import optimizer_class
from hypergen.zoo.ensemble.tile import Tile, Workload
from hypergen.zoo.networks import Network
from hypergen.zoo.store import Zoo


class ZooNetworks:
    """The problem and the architecture of a zoo of networks, rebuilt from its recipe.

    Args:
        zoo: Checkpoints of one architecture, built by a `NetworkZoo` recipe.

    Raises:
        RunError: The zoo does not say how it was built, or not by such a recipe.
        UsageError: Several architectures.
    """

    def __init__(self, zoo: Zoo) -> None:
        made = recipe_of(zoo)
        if made is None:
            raise RunError(
                f"{zoo.folder} does not say what its networks were trained on: only zoos of the "
                "recipe NetworkZoo can be scored"
            )
        self.zoo, self.recipe = zoo, made
        self.problem = made.problem
        self.network = Network.from_dict(zoo.architecture.config)

    @property
    def spec(self) -> WeightSpec:
        """Spec of the networks."""
        return self.network.spec()

    def score(
        self, flat: Tensor, tasks: Sequence[str], split: str, *, generated: bool = False
    ) -> dict[str, Tensor]:
        """Scores every network on its own task.

        Args:
            flat: `[N, numel]`.
            tasks: `[N]` names of tasks.
            split: Which samples.
            generated: Whether the networks were generated or mixed: their batch-norm statistics, if
                they have any, are re-estimated on training samples.

        Returns:
            Metric → `[N]`.

        Raises:
            UsageError: An unknown task or split, or as many tasks as there are not networks.
            WeightsError: Numbers of another shape.
        """
        scores = evaluate_networks(
            self.zoo,
            flat,
            split,
            tasks,
            batch_norm="train" if generated else "stored",
            problem=self.problem,
        )
        return {name: values.float() for name, values in scores.metrics.items()}

    def majority(self, tasks: Sequence[str], split: str) -> Tensor:
        """`[N]`, accuracy of always giving the answer that is most frequent on training samples.

        Raises:
            UsageError: The problem's answers are no classes.
        """
        numbers = task_numbers(self.zoo, self.problem, tasks)
        counts = self._answers(numbers, "train")
        own = self._answers(numbers, split).float()
        return own.gather(1, counts.argmax(1, keepdim=True))[:, 0] / own.sum(1)

    def _answers(self, numbers: Tensor, split: str) -> Tensor:
        """`[N, outputs]`, how often each answer is right."""
        samples = torch.arange(len(self.problem.inputs(split))).expand(len(numbers), -1)
        answers = self.problem.targets(split, numbers, samples)
        if answers.is_floating_point():
            raise UsageError("answers that are no classes have no majority")
        return torch.nn.functional.one_hot(answers, self.problem.outputs).sum(1)

    def train(
        self,
        flat: Tensor,
        tasks: Sequence[str],
        steps: Sequence[int],
        *,
        lr: float | Sequence[float],
        split: str = "val",
        seed: int = 0,
        optimizer: str = "adamw",
        batch_size: int | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Trains networks further from given weights, all in one stack, at a constant rate.

        Args:
            flat: `[N, numel]`, where they start.
            tasks: `[N]` names of tasks.
            steps: After how many steps to score, rising, from 0 or more.
            lr: Learning rate, or one for each network.
            split: Samples to score on.
            seed: Seed of the order of the samples.
            optimizer: `"adamw"` (a fresh one: without decay it is Adam) or `"sgd"`.
            batch_size: Samples of a step; the zoo's own when not given.

        Returns:
            Metric → `[len(steps), N]`, and the weights after the last step, `[N, numel]`.
        """
        if list(steps) != sorted(set(steps)) or not steps or steps[0] < 0:
            raise UsageError(f"steps must rise from 0 or more, not {list(steps)}")
        numbers = task_numbers(self.zoo, self.problem, tasks).tolist()
        rates = [lr] * len(flat) if isinstance(lr, (int, float)) else list(lr)
        members = [
            Member(seed=seed + i, task=task, lr=rate)
            for i, (task, rate) in enumerate(zip(numbers, rates, strict=True))
        ]
        work = Workload(
            self.network,
            self.problem,
            batch_size or self.recipe.batch_size,
            optimizer_class(optimizer),
            "cpu",
            "auto",
        )
        found: dict[str, list[Tensor]] = {}
        with flush_denormals():
            tile = Tile(work, members, flat.detach().float())
            done = 0
            for stop in steps:
                for _ in range(stop - done):
                    tile.step(1.0)
                done = stop
                for name, values in tile.scores(split).items():
                    found.setdefault(name, []).append(values)
            return {n: torch.stack(v) for n, v in found.items()}, tile.weights.flat()
