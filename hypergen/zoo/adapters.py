"""Weights for many tasks, trained as one stacked network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import WeightsError
from hypergen._utils.progress import progress
from hypergen._utils.seeding import generator as seeded
from hypergen.specs import Weights, WeightSpec
from hypergen.zoo.tasks import TaskSuite


def train_weights(
    target: Callable[[Weights, Any], Any],
    spec: WeightSpec,
    suite: TaskSuite,
    tasks: Sequence[int] | Tensor,
    *,
    steps: int = 300,
    samples: int = 32,
    lr: float = 1e-2,
    weight_decay: float = 0.0,
    seed: int = 0,
    start: Tensor | None = None,
    split: str = "train",
    desc: str = "training adapters",
) -> Weights:
    """Trains one set of weights for each task, all in the same forward and backward passes.

    Every network starts from the same values (as PEFT would with one seed), so that tasks are
    comparable entry by entry. Losses are summed and Adam works entry by entry, so that no network
    influences another. Linear warm-up and cosine decay of the learning rate.

    Args:
        target: The frozen target.
        spec: What is trained.
        suite: Where samples and losses come from.
        tasks: `[M]` task numbers.
        steps: Optimiser steps.
        samples: Samples of each task a step.
        lr: Peak learning rate of Adam.
        weight_decay: Decoupled weight decay.
        seed: Seed of the start and of the samples.
        start: `[numel]` (or `[M, numel]`) starting values; the spec's own when not given.
        split: Split of the samples.
        desc: Words before the progress bar.

    Returns:
        Weights of batch size M.

    Raises:
        WeightsError: Training diverged; names the task.
    """
    numbers = torch.as_tensor(tasks, dtype=torch.long)
    count = len(numbers)
    values = spec.initial(seed) if start is None else start
    flat = values.expand(count, -1).clone().requires_grad_()

    def loss(step: int) -> Tensor:
        batch = suite.sample(numbers, samples, seeded("adapters", seed, step), split)
        # The loss is a mean over all tasks; its gradient is scaled back to each task's own.
        return suite.loss(target(spec.from_flat(flat), batch["inputs"]), batch) * count

    _optimise(flat, loss, steps, lr, weight_decay, desc)
    finite = torch.isfinite(flat).all(1)
    if not bool(finite.all()):
        bad = int((~finite).nonzero()[0])
        raise WeightsError(
            f"training diverged on task {suite.names[int(numbers[bad])]!r}: lower lr={lr}"
        )
    return spec.from_flat(flat.detach())


def train_multitask(
    target: Callable[[Weights, Any], Any],
    spec: WeightSpec,
    suite: TaskSuite,
    tasks: Sequence[int] | Tensor,
    *,
    steps: int = 300,
    tasks_per_step: int = 32,
    samples: int = 32,
    lr: float = 1e-2,
    seed: int = 0,
    desc: str = "training the multi-task adapter",
) -> Weights:
    """Trains one set of weights on all tasks at once: the multi-task baseline.

    Args:
        target: The frozen target.
        spec: What is trained.
        suite: Where samples and losses come from.
        tasks: `[M]` task numbers.
        steps: Optimiser steps.
        tasks_per_step: Tasks mixed in a step.
        samples: Samples of each task a step.
        lr: Peak learning rate of Adam.
        seed: Seed of the start and of the samples.
        desc: Words before the progress bar.

    Returns:
        Weights of batch size 1.
    """
    numbers = torch.as_tensor(tasks, dtype=torch.long)
    flat = spec.initial(seed)[None].clone().requires_grad_()

    def loss(step: int) -> Tensor:
        generator = seeded("multitask", seed, step)
        chosen = numbers[torch.randint(len(numbers), (tasks_per_step,), generator=generator)]
        batch = suite.sample(chosen, samples, generator)
        return suite.loss(target(spec.from_flat(flat), batch["inputs"]), batch)

    _optimise(flat, loss, steps, lr, 0.0, desc)
    return spec.from_flat(flat.detach()).check_finite()


def _optimise(
    flat: Tensor,
    loss: Callable[[int], Tensor],
    steps: int,
    lr: float,
    weight_decay: float,
    desc: str,
) -> None:
    """Adam on one leaf, in place, with a linear warm-up and a cosine decay.

    Args:
        flat: The leaf.
        loss: Scalar loss of a step.
        steps: Optimiser steps.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay.
        desc: Words before the progress bar.
    """
    optimizer = torch.optim.AdamW([flat], lr=lr, weight_decay=weight_decay)
    warmup = max(1, steps // 20)

    def factor(step: int) -> float:
        done = (step - warmup) / max(1, steps - warmup)
        return (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * done))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for step in progress(range(steps), desc=desc, unit="step"):
        value = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        schedule.step()
