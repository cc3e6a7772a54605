"""Asking a network for another metric value: is it reached, and what would training have taken?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.progress import progress
from hypergen.evaluation.prompting_result import Prompting, Update
from hypergen.evaluation.zoo_networks import ZooNetworks
from hypergen.specs import Weights
from hypergen.zoo.reading import metric_values
from hypergen.zoo.store import Zoo

# Steps of the optimiser after which a network that goes on training is scored.
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
# Learning rates of which the best is taken at every number of steps, as factors of the run's own.
RATES = (0.3, 1.0, 3.0)


class Prompted(Protocol):
    """What an evaluation needs of a generator."""

    def prompt(
        self,
        weights: Any,
        current: Tensor,
        wanted: Tensor,
        *,
        seed: int = 0,
        recursive: int = 1,
        measure: Callable[[Weights], Tensor] | None = None,
    ) -> Weights:
        """Weights that should have the wanted metric values."""


def evaluate_prompting(
    generator: Prompted,
    train: Zoo,
    test: Zoo,
    metric: str,
    *,
    log: bool = True,
    prompts: int = 20,
    recursive: int = 3,
    steps: Sequence[int] = STEPS,
    runs: int | None = 100,
    seed: int = 0,
    resamples: int = 2000,
) -> Prompting:
    """Prompts the first checkpoint of every held-out run for a range of metric values.

    The protocol of G.pt (Peebles et al., 2022, arXiv:2209.12892): for each network, wanted values
    over the range of the training set against what the generated network has, and the share of
    variance that the line "as wanted" explains (prompt alignment, R²). And for each, how many steps
    of an optimiser that starts from the same checkpoint reach what one generated update reaches.

    A value near the wanted one is not hard to have: a training checkpoint that has it can be looked
    up. So the baselines stand beside: that copy, the current weights unchanged, the mean network,
    and the run's own checkpoint with the nearest value. What tells an update of this network from
    a copy of another one is where it lies; see `Prompting.closeness`.

    Metrics are those of the samples that the prompt names, never of the test split; what the prompt
    for the best value gives is scored on the test split too.

    Args:
        generator: A G.pt generator.
        train: Its training checkpoints.
        test: Checkpoints of held-out runs.
        metric: What is prompted for, `"split.name"`.
        log: Whether values are spaced, and R² computed, on logarithms.
        prompts: Wanted values of each network.
        recursive: Prompts for the best value that follow one another, each from the last result.
        steps: Steps of the optimiser to compare with; none when empty.
        runs: Most held-out runs; all when None.
        seed: Seed of all draws.
        resamples: Resamples of the bootstrap over runs.

    Raises:
        UsageError: A run is in both parts, or the metric is of the test split.
    """
    split, _, name = metric.partition(".")
    if split == "test":
        raise UsageError("a prompt for a metric of the test split would tell what it must not")
    shared = {row.run for row in train.rows} & {row.run for row in test.rows}
    if shared:
        raise UsageError(f"run {min(shared)!r} is in training too: it is not held out")
    networks = ZooNetworks(train)
    groups = _by_run(test)[:runs]
    first = [group[0] for group in groups]
    tasks = [test.rows[i].task for i in first]
    current = test.flat(first).float()
    values = torch.from_numpy(metric_values(test, metric)).float()
    known = torch.from_numpy(metric_values(train, metric)).float()
    have = values[first]
    wanted = wanted_values(known, prompts, log)

    def measure(weights: Weights | Tensor) -> Tensor:
        flat = (weights if isinstance(weights, Tensor) else weights.flat()).float().cpu()
        repeated = [task for task in tasks for _ in range(len(flat) // len(tasks))]
        return networks.score(flat, repeated, split, generated=True)[name]

    def ask(goal: Tensor, weights: Tensor, now: Tensor, turn: int = 0) -> Tensor:
        """Flat weights of a prompt for one value for each network."""
        return generator.prompt(weights, now, goal, seed=seed + turn).flat().float().cpu()

    asked = []
    for value in progress(wanted.tolist(), desc="prompting", unit="value"):
        asked.append(ask(torch.full_like(have, value), current, have))
    generated = torch.stack(asked, 1)  # [R, P, numel]
    reached = measure(generated.flatten(0, 1)).view(len(first), prompts)

    train_flat = train.flat().float()
    scale = (lambda v: v.clamp(min=1e-12).log()) if log else (lambda v: v)
    nearest = (scale(known)[None] - scale(wanted)[:, None]).abs().argmin(1)
    copies = train_flat[nearest]
    own = [torch.tensor(group) for group in groups]
    own_nearest = torch.stack(
        [g[(scale(values[g])[None] - scale(wanted)[:, None]).abs().argmin(1)] for g in own]
    )
    observed = {
        "generated": reached,
        "copy": _copies(networks, copies, tasks, split, name, known[nearest]),
        "own": values[own_nearest],
        "current": have[:, None].expand(-1, prompts),
        "mean": measure(train_flat.mean(0).expand(len(first), -1))[:, None].expand(-1, prompts),
    }
    good = "low" if name == "loss" else "high"
    last = test.flat([group[-1] for group in groups]).float()
    # One prompt, the same for all: nothing is chosen by what came out.
    extreme = 0 if good == "low" else prompts - 1
    chosen = generated[:, extreme]
    result = Prompting(
        metric=metric,
        log=log,
        good=good,
        runs=[test.rows[i].run for i in first],
        wanted=wanted,
        current=have,
        observed=observed,
        closeness=_closeness(chosen, current, last, train_flat),
        update=None,
        recursive=None,
        test=_on_test(networks, name, tasks, chosen, current, last),
        resamples=resamples,
        seed=seed,
    )
    if recursive > 1:
        goal = wanted[extreme].expand(len(first))
        curve, weights, now = [have], current, have
        for turn in range(recursive):  # with another noise each time, as `GPt.prompt` does
            weights = ask(goal, weights, now, turn)
            now = measure(weights)
            curve.append(now)
        result = result.replace(recursive=torch.stack(curve, 1))
    if steps:
        trained = _trained(networks, test, first, steps, split, name, good, seed)
        result = result.replace(update=Update(list(steps), trained, reached[:, extreme]))
    return result


def wanted_values(known: Tensor, count: int, log: bool) -> Tensor:
    """`[count]` rising values over the range of the training set but for its outermost percents."""
    finite = known[torch.isfinite(known)].double()
    low, high = torch.quantile(finite, torch.tensor([0.01, 0.99], dtype=torch.float64)).tolist()
    if log:
        return torch.from_numpy(np.geomspace(max(low, 1e-12), max(high, 1e-12), count)).float()
    return torch.linspace(low, high, count)


def _by_run(zoo: Zoo) -> list[list[int]]:
    """Positions of each run's checkpoints, the earliest first, of runs with two at least."""
    runs: dict[str, list[int]] = {}
    for i, row in enumerate(zoo.rows):
        runs.setdefault(row.run, []).append(i)
    ordered = (sorted(group, key=lambda i: zoo.rows[i].step) for _, group in sorted(runs.items()))
    groups = [group for group in ordered if len(group) > 1]
    if not groups:
        raise UsageError("no held-out run has two checkpoints: build the zoo with save_steps")
    return groups


def _copies(
    networks: ZooNetworks,
    copies: Tensor,
    tasks: list[str],
    split: str,
    name: str,
    known: Tensor,
) -> Tensor:
    """`[R, P]`, the metric of copied checkpoints on each run's own task."""
    distinct = sorted(set(tasks))
    if len(distinct) == 1:
        return known[None].expand(len(tasks), -1)
    scored = {task: networks.score(copies, [task] * len(copies), split)[name] for task in distinct}
    return torch.stack([scored[task] for task in tasks])


def _closeness(chosen: Tensor, current: Tensor, last: Tensor, train: Tensor) -> dict[str, Tensor]:
    """Where the best generated networks lie, `[R]` each; see `Prompting.closeness`."""
    # By differences: by inner products, copies would come out at some distance.
    to_train = torch.cdist(chosen, train, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    moved = (chosen - current).norm(dim=1)
    step, way = chosen - current, last - current
    return {
        "to_current": moved,
        "to_own_last": (chosen - last).norm(dim=1),
        "to_training": to_train,
        "own_way": way.norm(dim=1),
        "cosine": torch.nn.functional.cosine_similarity(step, way, dim=1),
    }


def _on_test(
    networks: ZooNetworks,
    name: str,
    tasks: list[str],
    chosen: Tensor,
    current: Tensor,
    last: Tensor,
) -> dict[str, dict[str, Tensor]]:
    """Metrics on the test split of what the prompt for the best value gives."""
    parts = {"generated": chosen, "current": current, "own_last": last}
    return {
        key: networks.score(flat, tasks, "test", generated=key == "generated")
        for key, flat in parts.items()
    }


def _trained(
    networks: ZooNetworks,
    test: Zoo,
    first: list[int],
    steps: Sequence[int],
    split: str,
    name: str,
    good: str,
    seed: int,
) -> Tensor:
    """`[R, steps]`, the metric after steps of Adam, by each run's best of three learning rates."""
    tasks = [test.rows[i].task for i in first]
    rates = [float(test.rows[i].hyperparameters.get("lr", 1e-3)) for i in first]
    flat = test.flat(first).float()
    curves = []
    for factor in progress(RATES, desc="training on", unit="rate"):
        lr = [rate * factor for rate in rates]
        curve, _ = networks.train(flat, tasks, list(steps), lr=lr, split=split, seed=seed)
        curves.append(curve[name])
    stacked = torch.stack(curves)  # [rates, steps, R]
    return (stacked.amin(0) if good == "low" else stacked.amax(0)).T
