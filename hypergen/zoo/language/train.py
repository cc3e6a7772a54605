"""Adapters for many text tasks, trained as one stacked network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.seeding import generator as seeded
from hypergen.specs import WeightSpec
from hypergen.targets import Target
from hypergen.zoo.base_call import BaseCall
from hypergen.zoo.language.suite import TextSuite


@dataclass(frozen=True)
class AdapterRun:
    """One adapter of a stack.

    Attributes:
        task: Task number in the suite.
        seed: Seed of its start and of the order of its data.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay.
    """

    task: int
    seed: int = 0
    lr: float = 1e-3
    weight_decay: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return asdict(self)


@dataclass
class AdapterTrajectories:
    """What `train_adapters` returns, for C chosen steps of M adapters.

    Attributes:
        weights: `[C, M, numel]`.
        steps: The chosen steps.
        metrics: Split → metric → `[C, M]`.
        base: Split → metric → `[M]`, of the unchanged base on each adapter's task.
    """

    weights: Tensor
    steps: tuple[int, ...]
    metrics: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    base: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def train_adapters(
    target: Target,
    spec: WeightSpec,
    suite: TextSuite,
    runs: Sequence[AdapterRun],
    *,
    steps: int = 100,
    samples: int = 16,
    save_steps: Sequence[int] | None = None,
    warmup: float = 0.05,
    schedule: str = "cosine",
    clip: float | None = 1.0,
    evaluate: Sequence[str] = ("test",),
    on_step: Callable[[int], None] | None = None,
) -> AdapterTrajectories:
    """Trains one adapter for each run, all in the same forward and backward passes.

    Each adapter sees its own samples, drawn without replacement epoch by epoch, and its own mean
    loss; the optimiser (AdamW: Loshchilov and Hutter, arXiv:1711.05101; betas 0.9 and 0.999) works
    entry by entry on one leaf `[M, numel]`, gradients are clipped adapter by adapter. So an
    adapter is the same whatever it is stacked with, up to rounding.

    Args:
        target: The frozen target, made for `suite.network` with this spec.
        spec: What is trained.
        suite: The tasks.
        runs: Task, seed and learning rate of each adapter.
        steps: Optimiser steps.
        samples: Samples of each adapter a step.
        save_steps: Steps after which weights are kept (0 is the start); the last alone when not
            given.
        warmup: Share of the steps with linear warm-up.
        schedule: `"cosine"` (to zero) or `"constant"`, after the warm-up.
        clip: Greatest norm of an adapter's gradient; not clipped when None.
        evaluate: Splits of the instances on which every kept step and the base are measured.
        on_step: Called with the number of steps done.

    Returns:
        Weights and metrics. Unless `"train"` is evaluated, `metrics["train"]["loss"]` is the mean
        loss of the samples seen since the step kept before (NaN at step 0). An adapter that
        diverges holds NaN from then on.

    Raises:
        UsageError: No runs, save steps out of range, an unknown schedule, or a task without
            instances.
    """
    kept = _check(runs, steps, save_steps, schedule)
    tasks = torch.tensor([run.task for run in runs])
    suite.check_split(tasks, "train")
    order = _data_order(suite, runs, steps * samples)
    start = torch.stack([spec.initial(run.seed) for run in runs])
    flat = start.to(suite.device).requires_grad_()
    optimizer = _StackedAdamW(flat, runs)
    result = AdapterTrajectories(torch.empty(len(kept), *flat.shape), kept)
    result.base = _base_metrics(target, spec, suite, tasks, evaluate)
    rows: dict[str, dict[str, list[Tensor]]] = {}
    seen, since = torch.zeros(len(runs)), 0

    def keep(step: int) -> None:
        result.weights[kept.index(step)] = flat.detach().cpu()
        if "train" not in evaluate:
            mean = seen / since if since else torch.full_like(seen, torch.nan)
            rows.setdefault("train", {}).setdefault("loss", []).append(mean)
        for split in evaluate:
            values = suite.evaluate(target, spec.from_flat(flat.detach()), tasks, split)
            for name, value in values.items():
                rows.setdefault(split, {}).setdefault(name, []).append(value)

    if 0 in kept:
        keep(0)
    for step in range(steps):
        batch = suite.train_batch(tasks, order[:, step * samples : (step + 1) * samples])
        losses = suite.losses(target(spec.from_flat(flat), batch["inputs"]), batch)
        (gradient,) = torch.autograd.grad(losses.sum(), flat)
        optimizer.step(gradient, _factor(step, steps, warmup, schedule), clip)
        seen, since = seen + losses.detach().cpu(), since + 1
        if step + 1 in kept:
            keep(step + 1)
            seen, since = torch.zeros(len(runs)), 0
        if on_step is not None:
            on_step(step + 1)
    result.metrics = {
        split: {name: torch.stack(values) for name, values in m.items()}
        for split, m in rows.items()
    }
    return result


class _StackedAdamW:
    """AdamW with a learning rate and weight decay for each row of one leaf."""

    def __init__(self, flat: Tensor, runs: Sequence[AdapterRun]) -> None:
        self.flat = flat
        self.lr = torch.tensor([[run.lr] for run in runs]).to(flat)
        self.decay = torch.tensor([[run.weight_decay] for run in runs]).to(flat)
        self.mean, self.square = torch.zeros_like(flat), torch.zeros_like(flat)
        self.count = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, factor: float, clip: float | None) -> None:
        if clip is not None:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (clip / norm.clamp(min=1e-12)).clamp(max=1.0)
        self.count += 1
        self.mean.lerp_(gradient, 0.1)
        self.square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        root = (self.square / (1 - 0.999**self.count)).sqrt_().add_(1e-8)
        lr = self.lr * factor
        self.flat.mul_(1 - lr * self.decay)
        self.flat.sub_(lr * self.mean / (1 - 0.9**self.count) / root)


def _factor(step: int, steps: int, warmup: float, schedule: str) -> float:
    """What the peak learning rate is multiplied by."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _data_order(suite: TextSuite, runs: Sequence[AdapterRun], total: int) -> Tensor:
    """Which instances each run sees, `[M, total]`: permutations, one after the other."""
    counts = suite.counts("train")
    out = torch.empty(len(runs), total, dtype=torch.long)
    for row, run in zip(out, runs, strict=True):
        # Neither task numbers nor neighbours: an adapter is the same in any zoo.
        random = seeded("text data", suite.tasks[run.task].hash, run.seed)
        count = int(counts[run.task])
        epochs = [torch.randperm(count, generator=random) for _ in range(-(-total // count))]
        row.copy_(torch.cat(epochs)[:total])
    return out


@torch.no_grad()
def _base_metrics(
    target: Target, spec: WeightSpec, suite: TextSuite, tasks: Tensor, splits: Sequence[str]
) -> dict[str, dict[str, Tensor]]:
    """Metrics of the unchanged base, once for each different task."""
    distinct, position = tasks.unique(return_inverse=True)
    ignored = spec.from_flat(torch.zeros(len(distinct), spec.numel)).to(suite.device)
    return {
        split: {
            name: value[position]
            for name, value in suite.evaluate(BaseCall(target), ignored, distinct, split).items()
        }
        for split in splits
    }


def _check(
    runs: Sequence[AdapterRun], steps: int, save_steps: Sequence[int] | None, schedule: str
) -> tuple[int, ...]:
    """The steps to keep, sorted."""
    if not runs:
        raise UsageError("no adapters to train: runs is empty")
    if steps < 1:
        raise UsageError(f"steps is {steps}: it must be at least 1")
    if schedule not in ("cosine", "constant"):
        raise UsageError(f"schedule is {schedule!r}: use 'cosine' or 'constant'")
    kept = tuple(sorted(set(save_steps if save_steps is not None else (steps,))))
    if not kept or kept[0] < 0 or kept[-1] > steps:
        raise UsageError(f"save_steps {list(kept)} must lie between 0 and steps={steps}")
    return kept
