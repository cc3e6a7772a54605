"""Trains one network from any start: a default one, or what a hypernetwork generated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.seeding import generator as seeded
from hypergen._utils.seeding import stable_seed
from hypergen.zoo.architectures.base import Architecture
from hypergen.zoo.architectures.functional import call
from hypergen.zoo.architectures.problems import LearningProblem
from hypergen.zoo.ensemble.schedule import schedule_factors

Optimizer = Literal["sgd", "adamw"]


@dataclass(frozen=True)
class NetworkTraining:
    """How a network is trained.

    Attributes:
        steps: Steps of the optimiser.
        lr: Peak learning rate.
        optimizer: `sgd` (momentum 0.9) or `adamw`.
        batch_size: Inputs of a step.
        weight_decay: Of all matrices.
        warmup: Share of the steps in which the rate rises; cosine decay follows.
        clip: Largest norm of the gradient.
        smoothing: Label smoothing.
    """

    steps: int = 100
    lr: float = 0.1
    optimizer: Optimizer = "sgd"
    batch_size: int = 64
    weight_decay: float = 5e-4
    warmup: float = 0.05
    clip: float = 5.0
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        known = get_args(Optimizer)
        if self.optimizer not in known:
            raise UsageError(
                f"unknown optimizer {self.optimizer!r}.{did_you_mean(self.optimizer, known)}"
            )
        for name in ("lr", "batch_size", "clip"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be positive, not {getattr(self, name)}")
        if self.steps < 0:
            raise UsageError(f"steps must not be negative, not {self.steps}")


@dataclass(frozen=True)
class Measured:
    """How good a network is on a split.

    Attributes:
        accuracy: Share of right answers.
        loss: Mean cross-entropy in nats.
    """

    accuracy: float
    loss: float


def train_from(
    network: Architecture | nn.Module,
    start: Mapping[str, Tensor],
    problem: LearningProblem,
    training: NetworkTraining,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Tensor], Tensor]:
    """Trains a network from given parameters: generated ones, or those of its default start.

    Batches depend on `seed` and the number of the step alone: different starts see the same.

    Args:
        network: An architecture or a module, on `device` if it has buffers.
        start: Name → parameter; they stay as they are.
        problem: What it learns.
        training: How.
        seed: Seed of the batches.
        device: Where.

    Returns:
        The trained parameters, and the loss of each step `[steps]`; where a loss is not finite
        training ends, and the rest are NaN.
    """
    parameters = {
        name: p.detach().to(device, torch.float32, copy=True).requires_grad_()
        for name, p in start.items()
    }
    leaves = list(parameters.values())
    groups = [
        {"params": [p for p in leaves if p.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in leaves if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer: torch.optim.Optimizer
    if training.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=training.lr, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(groups, lr=training.lr)
    random = seeded("network", seed)
    losses = torch.full((training.steps,), torch.nan)
    for step, factor in enumerate(schedule_factors("cosine", training.steps, training.warmup)):
        for group in optimizer.param_groups:
            group["lr"] = training.lr * factor
        inputs, targets = (t.to(device) for t in problem.draw(training.batch_size, random))
        optimizer.zero_grad()
        loss = problem.loss(call(network, parameters, inputs), targets, training.smoothing)
        losses[step] = float(loss.detach())
        if not torch.isfinite(losses[step]):
            losses[step] = torch.nan
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves, training.clip)
        optimizer.step()
    return {name: p.detach() for name, p in parameters.items()}, losses


@torch.no_grad()
def measure(
    network: Architecture | nn.Module,
    parameters: Mapping[str, Tensor],
    problem: LearningProblem,
    split: str = "test",
    samples: int | None = None,
    batch_size: int = 100,
    device: torch.device | str = "cpu",
) -> Measured:
    """Accuracy and loss of a network on a split.

    Batch norm of an architecture takes the statistics of each batch, that of a module what its mode
    says.

    Args:
        network: An architecture or a module.
        parameters: Name → parameter.
        problem: What it is for.
        split: Split of the inputs.
        samples: How many of them, the first; all when None.
        batch_size: Inputs of a batch; all batches are nearly equal in size.
        device: Where.
    """
    placed = {name: p.to(device) for name, p in parameters.items()}
    count = problem.size(split) if samples is None else min(samples, problem.size(split))
    hits, losses = [], []
    for rows in torch.arange(count).tensor_split(max(1, round(count / batch_size))):
        inputs, targets = (t.to(device) for t in problem.batch(split, rows))
        outputs = call(network, placed, inputs)
        hits.append(problem.correct(outputs, targets).sum())
        losses.append(problem.loss(outputs, targets) * len(rows))
    return Measured(
        float(torch.stack(hits).sum()) / count, float(torch.stack(losses).sum()) / count
    )


def prepare_start(
    parameters: Mapping[str, Tensor], noise: float = 0.0, orthogonal: bool = False, seed: int = 0
) -> dict[str, Tensor]:
    """Changes generated parameters before they are trained.

    Generated weights of a layer tend to be alike, which training alone undoes slowly; GHN-3 adds
    noise or makes them orthogonal (Knyazev et al., ICML 2023, arXiv:2303.04143, section 4).

    Args:
        parameters: Name → parameter.
        noise: Deviation of the noise that is added to a matrix, as a multiple of the matrix's own.
        orthogonal: Whether each matrix (of a kernel: outputs × all else) is replaced by the
            nearest one with orthogonal rows or columns, scaled to the norm that it had.
        seed: Seed of the noise.

    Raises:
        UsageError: `noise` is negative.
    """
    if noise < 0:
        raise UsageError(f"noise must not be negative, not {noise}")
    found = {name: p.detach() for name, p in parameters.items()}
    shapes: dict[torch.Size, list[str]] = defaultdict(list)
    for name, p in found.items():
        if p.dim() > 1 and min(p.shape[0], p[0].numel()) > 1:
            shapes[p.shape].append(name)
    for shape, names in shapes.items():
        stack = torch.stack([found[name] for name in names]).flatten(2).float()
        if orthogonal:
            left, values, right = torch.linalg.svd(stack, full_matrices=False)
            scale = values.norm(dim=1) / values.shape[1] ** 0.5
            stack = scale[:, None, None] * (left @ right)
        if noise:
            random = torch.Generator().manual_seed(stable_seed("noise", seed, list(shape)))
            drawn = torch.randn(stack.shape, generator=random).to(stack.device)
            stack = stack + noise * stack.std((1, 2), keepdim=True) * drawn
        for name, value in zip(names, stack.unflatten(2, shape[1:]), strict=True):
            found[name] = value.to(found[name].dtype)
    return found
