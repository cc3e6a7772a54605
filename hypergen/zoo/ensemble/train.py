"""Trains thousands of small networks as one stacked network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch

from hypergen._utils.errors import UsageError
from hypergen._utils.threads import flush_denormals
from hypergen.zoo.ensemble.member import Member
from hypergen.zoo.ensemble.optimizers import optimizer_class
from hypergen.zoo.ensemble.problem import Problem
from hypergen.zoo.ensemble.schedule import Schedule, schedule_factors
from hypergen.zoo.ensemble.tile import Engine, Tile, Workload
from hypergen.zoo.ensemble.trajectories import Trajectories
from hypergen.zoo.ensemble.widths import check_narrower
from hypergen.zoo.networks import Network

# Bytes of a tile. Written-out kernels gain from the cache; vmap has more kernels to call, and more
# members share that cost.
_CACHE = 7 << 20
_VMAP_MEMORY = 48 << 20
_DEVICE_MEMORY = 1 << 30  # on an accelerator
_LEAST = 16  # members of a tile, so that the cost of calling kernels is shared


def train_ensemble(
    network: Network,
    members: Sequence[Member],
    problem: Problem,
    *,
    steps: int,
    batch_size: int,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    schedule: Schedule = "cosine",
    warmup: float | None = None,
    save_steps: Sequence[int] = (),
    splits: Sequence[str] | None = None,
    evaluation_samples: int | None = None,
    device: str | torch.device = "cpu",
    engine: Engine = "auto",
    tile: int | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Trajectories:
    """Trains many networks of one architecture at once.

    The members are trained in tiles, all steps of one before the next, that fit into the cache.
    A member's result depends on the other members by no more than rounding: starting weights, data
    order, learning rate and decay are its own, and no operation mixes members, so that one that
    diverges disturbs nobody. The same call gives the same bytes on the same machine.

    Args:
        network: Architecture, the widest one where members differ in width.
        members: One entry a network.
        problem: Samples, loss and metrics.
        steps: Optimiser steps.
        batch_size: Samples of each network in one step.
        optimizer: adamw or sgd (momentum 0.9).
        schedule: constant, cosine or one-cycle.
        warmup: Share of the steps in which the learning rate rises; see `schedule_factors`.
        save_steps: Steps after which weights are kept and scored (0 is the start); the last one
            when empty.
        splits: Splits that are scored; all of the problem's when not given.
        evaluation_samples: Score the first samples of each split only, this many.
        device: Where to compute.
        engine: mlp is written out for plain MLPs, vmap works for all; auto chooses.
        tile: Members of a tile; chosen by size when not given.
        on_step: Called with 1, 2, …, `steps` as training proceeds. With several tiles, `s` means
            that as much is done as `s` steps of all members.

    Returns:
        Weights and metrics at the saved steps.

    Raises:
        UsageError: An option does not exist or does not fit the network or the problem.
    """
    saves = _saved_steps(save_steps, steps)
    _check_members(network, members, problem)
    wanted = tuple(problem.splits if splits is None else splits)
    for split in wanted:
        problem.check_split(split)
    factors = schedule_factors(schedule, steps, warmup)
    work = Workload(network, problem, batch_size, optimizer_class(optimizer), device, engine)
    count = _tiles(len(members), tile, work)

    weights = torch.empty(len(saves), len(members), network.spec().numel)
    metrics: dict[str, dict[str, torch.Tensor]] = {split: {} for split in wanted}
    progress = _Progress(len(members), on_step)

    with flush_denormals():
        for rows in torch.arange(len(members)).tensor_split(count):
            part = Tile(work, [members[i] for i in rows.tolist()])
            for step in range(steps + 1):
                if step:
                    part.step(factors[step - 1])
                    progress.add(len(rows))
                if step not in saves:
                    continue
                place = saves.index(step), rows
                weights[place] = part.weights.flat()
                for split in wanted:
                    for name, values in part.scores(split, evaluation_samples).items():
                        empty = torch.empty(len(saves), len(members))
                        metrics[split].setdefault(name, empty)[place] = values
    return Trajectories(network, tuple(members), saves, weights, metrics)


def _saved_steps(save_steps: Sequence[int], steps: int) -> tuple[int, ...]:
    if steps < 1:
        raise UsageError(f"steps must be at least 1, not {steps}")
    saves = tuple(sorted(set(save_steps))) or (steps,)
    if saves[0] < 0 or saves[-1] > steps:
        raise UsageError(f"save_steps {list(save_steps)} must lie between 0 and {steps} (steps)")
    return saves


def _check_members(network: Network, members: Sequence[Member], problem: Problem) -> None:
    if not members:
        raise UsageError("a stack needs at least one member")
    tasks = len(problem.tasks)
    for i, member in enumerate(members):
        if not 0 <= member.task < tasks:
            raise UsageError(f"member {i} has task {member.task}, the problem has 0…{tasks - 1}")
    for own in dict.fromkeys(member.network for member in members):
        if own is not None:
            check_narrower(own, network)


def _tiles(members: int, tile: int | None, work: Workload) -> int:
    """Number of tiles, of nearly equal size."""
    if tile is None:
        memory = _DEVICE_MEMORY
        if work.device.type == "cpu":
            memory = _CACHE if work.written_out else _VMAP_MEMORY
        tile = max(_LEAST, memory // work.bytes_per_member)
    elif tile < 1:
        raise UsageError(f"tile must be at least 1, not {tile}")
    return math.ceil(members / tile)


class _Progress:
    """Turns steps of tiles into steps of the whole stack."""

    def __init__(self, members: int, on_step: Callable[[int], None] | None) -> None:
        self.members, self.on_step = members, on_step
        self.done = self.told = 0

    def add(self, count: int) -> None:
        """One more step of `count` members is done."""
        self.done += count
        while self.on_step is not None and (self.told + 1) * self.members <= self.done:
            self.told += 1
            self.on_step(self.told)
