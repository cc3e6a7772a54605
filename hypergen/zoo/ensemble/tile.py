"""A tile: the members of a stack that are trained together, small enough for the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen.zoo.ensemble.backprop import MLPGradients
from hypergen.zoo.ensemble.evaluate import activation_count, evaluate
from hypergen.zoo.ensemble.member import Member
from hypergen.zoo.ensemble.optimizers import StackedOptimizer
from hypergen.zoo.ensemble.order import DataOrder
from hypergen.zoo.ensemble.problem import Problem
from hypergen.zoo.ensemble.stack import StackedWeights, starting_weights
from hypergen.zoo.ensemble.vmapped import VmappedGradients
from hypergen.zoo.networks import MLP, Network

Engine = Literal["auto", "mlp", "vmap"]

_DRAWN = 64  # steps whose batches are drawn at once


class Workload:
    """What all tiles of a stack share.

    Args:
        network: Architecture of the stack.
        problem: What is learned.
        batch_size: Samples of a member in one step.
        optimizer: Class of the optimiser.
        device: Where to compute.
        engine: auto, mlp or vmap; see `train_ensemble`.

    Raises:
        UsageError: The network does not fit the problem, or the engine the network.
    """

    def __init__(
        self,
        network: Network,
        problem: Problem,
        batch_size: int,
        optimizer: type[StackedOptimizer],
        device: str | torch.device,
        engine: Engine,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        if engine not in get_args(Engine):
            raise UsageError(f"no engine {engine!r}.{did_you_mean(engine, get_args(Engine))}")
        self.network, self.problem, self.batch_size = network, problem, batch_size
        self.optimizer, self.device = optimizer, torch.device(device)
        self.spec = network.spec()
        with torch.device("meta"):
            self.module = network.module()
        names = set(self.spec.names)
        self.buffers = frozenset(n for n, _ in self.module.named_buffers() if n in names)
        self.written_out = engine != "vmap" and MLPGradients.fits(self.module, problem)
        if engine == "mlp" and not self.written_out:
            raise UsageError(f"engine 'mlp' cannot train {network}: take 'auto' or 'vmap'")
        self.flatten = isinstance(network, MLP)
        inputs = problem.inputs("train")
        inputs = inputs.flatten(1) if self.flatten else inputs
        self._check_shapes(inputs.shape[1:])
        self.activations = activation_count(self.module, inputs.shape[1:])
        self.inputs = inputs.contiguous().to(self.device)

    def _check_shapes(self, shape: torch.Size) -> None:
        try:
            outputs = self.module(torch.empty(2, *shape, device="meta")).shape[-1]
        except RuntimeError as error:
            raise UsageError(
                f"{self.network} does not take the problem's inputs, of shape {tuple(shape)}: "
                f"{error}"
            ) from error
        if outputs != self.problem.outputs:
            raise UsageError(
                f"{self.network} has {outputs} outputs, the problem needs {self.problem.outputs}"
            )

    @property
    def bytes_per_member(self) -> int:
        """Memory that a step of one member goes through.

        Weights, gradient, scaled weights and two averages; activations and their gradients.
        """
        return 4 * (5 * self.spec.numel + 2 * self.batch_size * self.activations)


class Tile:
    """Trains some members of a stack side by side.

    Args:
        work: What all tiles share.
        members: The members.
        start: `[M, numel]`, where they start; by the members' seeds when not given.
    """

    def __init__(
        self, work: Workload, members: Sequence[Member], start: Tensor | None = None
    ) -> None:
        self.work = work
        self.tasks = torch.tensor([member.task for member in members])
        self.weights = StackedWeights(work.spec, work.buffers, len(members), work.device)
        # Before the optimiser is made, which reads them.
        self.weights.load(starting_weights(work.network, members) if start is None else start)
        gradient = torch.zeros(self.weights.trained, device=work.device)
        self._optimizer = work.optimizer(self.weights, gradient, members)
        self._gradients: MLPGradients | VmappedGradients
        if work.written_out:
            module = cast(nn.Sequential, work.module)
            self._gradients = MLPGradients(
                module, self.weights, gradient, work.problem, work.batch_size
            )
        else:
            self._gradients = VmappedGradients(work.module, self.weights, gradient, work.problem)
        self._batches = self._draw([member.seed for member in members])

    def step(self, factor: float) -> None:
        """Does one step of all members at `factor` times their peak learning rates."""
        self._gradients(*next(self._batches))
        self._optimizer.step(factor)

    def scores(self, split: str, limit: int | None = None) -> dict[str, Tensor]:
        """Metric → `[M]` on the samples of a split, or on the first `limit` of them."""
        work = self.work
        return evaluate(
            work.module,
            self.weights.views,
            work.problem,
            self.tasks,
            split,
            activations=work.activations,
            limit=limit,
            flatten=work.flatten,
        )

    def _draw(self, seeds: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs `[M, B, *shape]` and targets `[M, B, …]` of every step, without end.

        The inputs are one buffer, filled anew for each step.
        """
        work = self.work
        order = DataOrder(seeds, len(work.inputs), work.batch_size)
        x = work.inputs.new_empty(len(seeds), work.batch_size, *work.inputs.shape[1:])
        rows = x.flatten(0, 1)
        while True:
            index = order.take(_DRAWN)
            targets = work.problem.targets("train", self.tasks, index).to(work.device)
            for chosen, answers in zip(index.to(work.device).flatten(1), targets, strict=True):
                torch.index_select(work.inputs, 0, chosen, out=rows)
                yield x, answers
