"""Hundreds of networks of a zoo, scored on the zoo's own data in stacked calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import UsageError, WeightsError, did_you_mean
from hypergen._utils.progress import progress
from hypergen._utils.seeding import generator as seeded
from hypergen.evaluation.batch_norm import norm_layers, reestimate
from hypergen.zoo import Zoo
from hypergen.zoo.build import NetworkZoo, Recipe
from hypergen.zoo.ensemble import Classification, Problem
from hypergen.zoo.ensemble.evaluate import activation_count, run_stack
from hypergen.zoo.networks import MLP, Network

BatchNormStatistics = Literal["stored", "train"]

_MEMORY = 1 << 24  # numbers that the activations of one chunk may take, roughly


@dataclass(frozen=True)
class NetworkScores:
    """What N networks do on the samples of a split.

    Attributes:
        metrics: Name → `[N]`: `accuracy` and `loss`, or `loss` and `psnr` of images.
        predictions: `[N, samples]`, the class that each network says, int16; None for networks
            that do not classify.
        outputs: `[N, samples, outputs]` when they were asked for.
        tasks: `[N]` task numbers.
        split: Name of the split.
    """

    metrics: dict[str, Tensor]
    predictions: Tensor | None
    outputs: Tensor | None
    tasks: Tensor
    split: str

    @property
    def quality(self) -> Tensor:
        """`[N]`, high is good: accuracy, else peak signal-to-noise ratio, else minus the loss."""
        for name in ("accuracy", "psnr"):
            if name in self.metrics:
                return self.metrics[name]
        return -self.metrics["loss"]


def recipe_of(zoo: Zoo) -> NetworkZoo | None:
    """How the networks of a zoo were made; None where it was imported, or holds adapters."""
    recipe = zoo.header.provenance.get("recipe")
    if not isinstance(recipe, Mapping) or recipe.get("recipe") != "NetworkZoo":
        return None
    found = Recipe.from_dict(recipe)
    assert isinstance(found, NetworkZoo)
    return found


def problem_of(zoo: Zoo) -> Problem:
    """The problem that the networks of a zoo learned, read from its recipe.

    Raises:
        UsageError: The zoo does not record one: it was imported, or holds adapters.
    """
    recipe = recipe_of(zoo)
    if recipe is None:
        raise UsageError(
            f"the zoo {zoo.header.name!r} does not record a problem whose data its networks could "
            "be scored on: only zoos that `hypergen zoo build` made of a NetworkZoo do"
        )
    return recipe.problem


def task_numbers(zoo: Zoo, problem: Problem, tasks: Sequence[str]) -> Tensor:
    """Names of tasks → their numbers in the problem.

    Raises:
        UsageError: A name that the problem does not have.
    """
    number = {name: i for i, name in enumerate(problem.tasks)}
    for name in tasks:
        if name not in number:
            raise UsageError(
                f"the zoo {zoo.header.name!r} has no task {name!r}.{did_you_mean(name, number)}"
            )
    return torch.tensor([number[name] for name in tasks], dtype=torch.long)


def evaluate_networks(
    zoo: Zoo,
    flat: Tensor,
    split: str = "test",
    tasks: Sequence[str] | Tensor | None = None,
    *,
    batch_norm: BatchNormStatistics = "stored",
    batch_norm_samples: int = 512,
    limit: int | None = None,
    outputs: bool = False,
    problem: Problem | None = None,
    desc: str = "",
) -> NetworkScores:
    """Scores networks of one architecture, whether stored or generated, in stacked calls.

    With `batch_norm="train"` the statistics of batch-norm layers are re-estimated for every
    network on samples of the *training* split, whatever split is scored: statistics of test
    images would tell the network about them. Architectures without such layers are left alone.

    Args:
        zoo: The zoo, or a view of one architecture, whose network and data are used.
        flat: `[N, numel]` weights in the order of `zoo.spec`.
        split: Split of the problem's samples.
        tasks: `[N]` names, or numbers in `problem.tasks`; may be left out where there is one task.
        batch_norm: Use the statistics among the weights, or re-estimate them.
        batch_norm_samples: Training samples that they are re-estimated on, drawn once (seed 0).
        limit: Only the first samples, this many.
        outputs: Whether to keep the networks' outputs.
        problem: The zoo's problem, to read it once for several calls.
        desc: Words of a progress bar; none is shown when empty.

    Returns:
        Metrics, predictions and outputs.

    Raises:
        UsageError: The zoo records no problem, the split or a task does not exist, or tasks are
            missing.
        WeightsError: `flat` does not fit the spec.
    """
    if batch_norm not in get_args(BatchNormStatistics):
        hint = did_you_mean(batch_norm, get_args(BatchNormStatistics))
        raise UsageError(f"batch_norm cannot be {batch_norm!r}.{hint}")
    problem = problem_of(zoo) if problem is None else problem
    problem.check_split(split)
    spec = zoo.spec
    if flat.dim() != 2 or flat.shape[1] != spec.numel:
        raise WeightsError(
            f"networks of {zoo.header.name!r} are [N, {spec.numel}] numbers, not {list(flat.shape)}"
        )
    numbers = _numbers(zoo, problem, tasks, len(flat))
    network = Network.from_dict(zoo.architecture.config)
    with torch.device("meta"):
        module = network.module()
    flatten = isinstance(network, MLP)
    x, train = (_inputs(problem, name, flatten) for name in (split, "train"))
    x = x[:limit]
    activations = activation_count(module, x.shape[1:])
    module.eval()
    normed = batch_norm == "train" and bool(norm_layers(module))
    chosen = train
    if normed:
        order = torch.randperm(len(train), generator=seeded("batch norm", 0))
        chosen = train[order[:batch_norm_samples]]
    # Few enough networks that all of them see at least 64 samples at a time.
    rows = max(1, _MEMORY // (activations * max(64, len(chosen) if normed else 0)))
    parts: list[dict[str, Tensor]] = []
    bar = progress(total=len(flat), desc=desc, unit=" networks") if desc else None
    for first in range(0, len(flat), rows):
        own, task = flat[first : first + rows], numbers[first : first + rows]
        weights = spec.from_flat(own.float()).named()
        if normed:
            weights = reestimate(module, weights, chosen, len(own))
        step = max(1, _MEMORY // (activations * len(own)))
        parts.append(_score(module, weights, problem, x, split, task, step, outputs))
        if bar is not None:
            bar.update(len(own))
    if bar is not None:
        bar.close()
    joined = {k: torch.cat([part[k] for part in parts]) for k in (parts[0] if parts else {})}
    predictions, kept = joined.pop("predictions", None), joined.pop("outputs", None)
    metrics = problem.summary(joined) if joined else {}
    return NetworkScores(metrics, predictions, kept, numbers, split)


def _score(
    module: torch.nn.Module,
    weights: dict[str, Tensor],
    problem: Problem,
    x: Tensor,
    split: str,
    tasks: Tensor,
    step: int,
    keep: bool,
) -> dict[str, Tensor]:
    """Mean scores `[m]` of some networks, with their predictions and outputs `[m, samples, …]`."""
    totals: dict[str, Tensor] = {}
    kept: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for start in range(0, len(x), step):
            part = x[start : start + step]
            index = torch.arange(start, start + len(part)).expand(len(tasks), -1)
            targets = problem.targets(split, tasks, index)
            out = run_stack(module, weights, part, len(tasks))
            for name, value in problem.scores(out, targets).items():
                total = value.double().sum(1)
                totals[name] = totals[name] + total if name in totals else total
            if isinstance(problem, Classification):
                kept.setdefault("predictions", []).append(out.argmax(-1).short())
            if keep:
                kept.setdefault("outputs", []).append(out)
    means = {name: (total / len(x)).float() for name, total in totals.items()}
    return means | {name: torch.cat(parts, dim=1) for name, parts in kept.items()}


def answers_of(problem: Problem, split: str, limit: int | None = None) -> Tensor | None:
    """`[tasks, samples]` right classes of every task, int16; None where nothing is classified."""
    if not isinstance(problem, Classification):
        return None
    count = len(problem.inputs(split)[:limit])
    tasks = torch.arange(len(problem.tasks))
    return problem.targets(split, tasks, torch.arange(count).expand(len(tasks), -1)).short()


def best_tasks(predictions: Tensor, answers: Tensor) -> Tensor:
    """`[N]`, the task that each network does best, by one matrix product.

    Args:
        predictions: `[N, samples]`.
        answers: `[tasks, samples]`.
    """
    classes = int(max(answers.max(), predictions.max())) + 1
    ours, theirs = (F.one_hot(x.long(), classes).flatten(1).float() for x in (predictions, answers))
    return (ours @ theirs.T).argmax(1)


def _inputs(problem: Problem, split: str, flatten: bool) -> Tensor:
    inputs = problem.inputs(split)
    return inputs.flatten(1) if flatten else inputs


def _numbers(zoo: Zoo, problem: Problem, tasks: Sequence[str] | Tensor | None, n: int) -> Tensor:
    if tasks is None:
        if len(problem.tasks) != 1:
            raise UsageError(
                f"the zoo {zoo.header.name!r} has {len(problem.tasks)} tasks: say which one each "
                "network is for (tasks=…)"
            )
        return torch.zeros(n, dtype=torch.long)
    numbers = tasks if isinstance(tasks, Tensor) else task_numbers(zoo, problem, tasks)
    if numbers.shape != (n,) or (n and not 0 <= int(numbers.min()) <= int(numbers.max())):
        raise UsageError(f"{n} networks need as many task numbers, not {list(numbers.shape)}")
    if n and int(numbers.max()) >= len(problem.tasks):
        raise UsageError(f"the problem has the tasks 0…{len(problem.tasks) - 1}, not all of these")
    return numbers.long()
