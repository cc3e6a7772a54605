"""Zoos of small networks, trained from scratch in stacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import torch

from hypergen import __version__
from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.seeding import stable_seed
from hypergen.zoo.build.options import plain
from hypergen.zoo.build.ranges import Range
from hypergen.zoo.build.recipe import Recipe
from hypergen.zoo.build.widths import Stack, stacks, width_of, with_width
from hypergen.zoo.ensemble.member import Member
from hypergen.zoo.ensemble.problem import Problem
from hypergen.zoo.ensemble.schedule import Schedule
from hypergen.zoo.ensemble.train import train_ensemble
from hypergen.zoo.ensemble.trajectories import Trajectories
from hypergen.zoo.networks import Network
from hypergen.zoo.store import Architecture, Block, Header, Row

Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True)
class NetworkZoo(Recipe):
    """Thousands of small networks, diverse by construction.

    Every run has its own start, order of the data, task, width and hyperparameters, all of which
    follow from the recipe's seed and the run's number. Checkpoints of few runs lie close together
    and make generators look better than they are (Zeng et al., 2025, arXiv:2506.07998).

    Run `r` learns task `r` modulo the number of tasks, so that tasks have equally many runs.

    Args:
        name: Name of the zoo.
        network: Architecture.
        problem: What the networks learn; the source of tasks and data.
        runs: Number of training runs.
        steps: Optimiser steps of a run.
        licence: Licence of the weights.
        seed: Seed of everything.
        widths: Hidden units (or channels) of each layer, to choose from for every run; those of
            `network` when not given. Similar widths train together, padded with zeros.
        runs_per_job: Runs that train as one stacked network, and are lost when a job is killed.
        batch_size: Samples of a run in one step.
        save_steps: Steps after which a checkpoint is kept, 0 for the start; by default the last.
        optimizer: `"adamw"` or `"sgd"` (with momentum).
        schedule: `"constant"`, `"cosine"` or `"one-cycle"`.
        warmup: Share of the steps in which the learning rate rises; by default none, and 0.3 for
            one-cycle.
        lr: Peak learning rate: a number, or a range to draw from for every run.
        weight_decay: Weight decay, likewise.
        shared_start: Whether all runs (of one width) start from the same values, as the networks of
            HyperDiffusion do (Erkoç et al., 2023, arXiv:2303.17015): then tasks differ by what was
            learned alone, which makes weights easy to predict from the task, and zoos less diverse.
        evaluation_samples: Samples of each split from which metrics are computed; all of them when
            not given.
        device: Where to train: `"cpu"`, `"cuda"`, …. Bytes are reproducible on the CPU.

    Raises:
        UsageError: A value is out of range; names it.
    """

    name: str
    network: Network
    problem: Problem
    runs: int
    steps: int
    licence: str = ""
    seed: int = 0
    widths: tuple[tuple[int, ...], ...] = ()
    runs_per_job: int = 64
    batch_size: int = 32
    save_steps: tuple[int, ...] = ()
    optimizer: Optimizer = "adamw"
    schedule: Schedule = "cosine"
    warmup: float | None = None
    lr: Range | float = 1e-3
    weight_decay: Range | float = 0.0
    shared_start: bool = False
    evaluation_samples: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("runs", "steps", "runs_per_job", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name, kind in (("optimizer", Optimizer), ("schedule", Schedule)):
            if getattr(self, name) not in get_args(kind):
                hint = did_you_mean(getattr(self, name), get_args(kind))
                raise UsageError(f"{name} cannot be {getattr(self, name)!r}.{hint}")
        steps = self.save_steps
        if list(steps) != sorted(set(steps)) or not all(0 <= s <= self.steps for s in steps):
            raise UsageError(
                f"save_steps must rise from 0 or more to at most steps={self.steps}, "
                f"not {list(steps)}"
            )
        for name in ("lr", "weight_decay"):
            try:
                object.__setattr__(self, name, Range.from_plain(getattr(self, name)))
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error
        if min(self._lr.values) <= 0 or min(self._weight_decay.values) < 0:
            raise UsageError("lr must be above 0, and weight_decay not below it")

    # -- what the zoo says -------------------------------------------------------------------------

    def header(self) -> Header:
        """Tasks with their descriptions, one architecture a width, and the whole recipe.

        Raises:
            UsageError: The network does not fit the problem.
        """
        outputs, wanted = getattr(self.network, "outputs", None), self.problem.outputs
        if outputs != wanted:
            raise UsageError(
                f"network: {type(self.network).__name__} has outputs={outputs}, the problem needs "
                f"outputs={wanted}"
            )
        return Header(
            name=self.name,
            licence=self.licence,
            tasks=self.problem.tasks,
            architectures={
                key: Architecture(network.spec(), network.to_dict())
                for key, network in self._architectures.items()
            },
            provenance={
                "recipe": self.to_dict(),
                "hypergen": __version__,
                "torch": torch.__version__,
                "data": plain(getattr(self.problem, "source", None)),
            },
            parts=self.jobs(),
        )

    def jobs(self) -> int:
        """One job for each stack of at most `runs_per_job` runs."""
        return len(self._stacks)

    def models(self, job: int) -> int:
        """Runs of a job."""
        return len(self._stacks[job].runs)

    @property
    def advice(self) -> str:
        """What saves memory."""
        return (
            f"use fewer --workers, a smaller runs_per_job (now {self.runs_per_job}) or fewer "
            f"save_steps"
        )

    # -- runs --------------------------------------------------------------------------------------

    def member(self, run: int) -> Member:
        """Seed, task, hyperparameters and width of a run."""
        return Member(
            seed=stable_seed(self.seed, "run", run),
            task=run % len(self._tasks),
            lr=self._lr.draw(self.seed, "lr", run),
            weight_decay=self._weight_decay.draw(self.seed, "weight_decay", run),
            network=self._networks[stable_seed(self.seed, "width", run) % len(self._networks)],
            start=stable_seed(self.seed, "shared start") if self.shared_start else None,
        )

    @property
    def _lr(self) -> Range:
        return Range.from_plain(self.lr)

    @property
    def _weight_decay(self) -> Range:
        return Range.from_plain(self.weight_decay)

    @cached_property
    def _networks(self) -> list[Network]:
        """The architectures to choose from."""
        return [with_width(self.network, width) for width in self.widths] or [self.network]

    @cached_property
    def _architectures(self) -> dict[str, Network]:
        return {_key(network): network for network in self._networks}

    @cached_property
    def _tasks(self) -> list[str]:
        return list(self.problem.tasks)

    @cached_property
    def _members(self) -> list[Member]:
        return [self.member(run) for run in range(self.runs)]

    @cached_property
    def _stacks(self) -> list[Stack]:
        return stacks([m.network or self.network for m in self._members], self.runs_per_job)

    # -- training ----------------------------------------------------------------------------------

    def run(self, job: int, on_step: Callable[[int], None] | None = None) -> list[Block]:
        """Trains a stack and returns one block for each architecture in it."""
        stack = self._stacks[job]
        trained = train_ensemble(
            stack.network,
            [self._members[run] for run in stack.runs],
            self.problem,
            steps=self.steps,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            schedule=self.schedule,
            warmup=self.warmup,
            save_steps=self.save_steps,
            evaluation_samples=self.evaluation_samples,
            device=self.device,
            on_step=on_step,
        )
        return list(self._blocks(stack, trained))

    def _blocks(self, stack: Stack, trained: Trajectories) -> Iterator[Block]:
        """Checkpoints by architecture, run by run, each in the order of its steps."""
        metrics = {
            (split, name): values.mT.tolist()
            for split, by_name in trained.metrics.items()
            for name, values in by_name.items()
        }
        keys = {network: key for key, network in self._architectures.items()}
        for network, places, weights in trained.by_network():
            rows = [
                replace(
                    self._row(stack.runs[place], keys[network]),
                    step=step,
                    metrics=_at(metrics, place, c),
                )
                for place in places
                for c, step in enumerate(trained.steps)
            ]
            yield Block(keys[network], weights.transpose(0, 1).flatten(0, 1), rows)

    def _row(self, run: int, architecture: str) -> Row:
        """What all checkpoints of a run have in common."""
        member = self._members[run]
        return Row(
            run=f"run-{run:06d}",
            step=0,
            architecture=architecture,
            task=self._tasks[member.task],
            seed=member.seed,
            hyperparameters={"lr": member.lr, "weight_decay": member.weight_decay},
        )


def _at(
    metrics: dict[tuple[str, str], list[list[float]]], place: int, c: int
) -> dict[str, dict[str, float]]:
    """Metrics by split of one checkpoint, from lists over members and steps."""
    out: dict[str, dict[str, float]] = {}
    for (split, name), values in metrics.items():
        out.setdefault(split, {})[name] = values[place][c]
    return out


def _key(network: Network) -> str:
    """Name of an architecture: its class and widths."""
    return "-".join([type(network).__name__.lower(), *map(str, width_of(network))])
