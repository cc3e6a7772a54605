"""Building a zoo: 512 stacked MLPs against the same training one by one.

Cost model, for M networks with m entries in matrices (m₁ of them in the first layer), n numbers in
all and batches of B: a step takes 2 M B (3 m - m₁) operations in products (the data need no
gradient), and AdamW goes through five vectors of M n numbers. The bound below runs the products of
every step alone, tile by tile, in buffers allocated beforehand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.progress import progress
from hypergen.bench.timing import Timing, interleave
from hypergen.zoo.ensemble import Classification, Digits, Member, schedule_factors, train_ensemble
from hypergen.zoo.ensemble.order import DataOrder
from hypergen.zoo.ensemble.stack import starting_weights
from hypergen.zoo.networks import MLP

MODELS = 512
BATCHES = {32: 300, 128: 150}  # batch size → steps, enough for 90 %
REFERENCES = 16  # networks that the loop trains in one run; its time does not depend on how many
TILE = 64  # networks whose products are timed together
BOUND_SHARE = 10  # the bound runs every tenth step


def members(count: int) -> list[Member]:
    """Networks with seeds of their own and learning rates from 3e-3 to 1e-2."""
    shares = torch.linspace(0, 1, count).tolist()
    return [Member(i, 0, 3e-3 * (10 / 3) ** share) for i, share in enumerate(shares)]


def train_one(
    net: MLP, start: Tensor, member: Member, problem: Classification, steps: int, batch_size: int
) -> float:
    """The ordinary loop over one network; returns its test accuracy."""
    module = net.module()
    module.load_state_dict(net.spec().unpack(start))
    optimizer = torch.optim.AdamW(module.parameters(), lr=member.lr, weight_decay=0.0)
    images, labels = problem.inputs("train").flatten(1), problem.data.labels["train"]
    order = DataOrder([member.seed], len(images), batch_size).take(steps)[:, 0]
    for factor, index in zip(schedule_factors("cosine", steps), order, strict=True):
        optimizer.param_groups[0]["lr"] = member.lr * factor
        loss = F.cross_entropy(module(images[index]), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        guesses = module(problem.inputs("test").flatten(1)).argmax(-1)
    return float((guesses == problem.data.labels["test"]).float().mean())


def products(net: MLP, count: int, batch_size: int, steps: int) -> Callable[[], None]:
    """The matrix products of `steps` steps of `count` networks, and nothing else."""
    sizes = [net.inputs, *net.hidden, net.outputs]
    x = torch.randn(count, batch_size, net.inputs)
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        w = torch.randn(count, outputs, inputs)
        y = torch.empty(count, outputs, batch_size)
        d = torch.randn_like(y)
        layers.append((w, y, d, torch.empty_like(w), torch.empty_like(y)))

    def run() -> None:
        for _ in range(steps):
            below = x.mT
            for w, y, *_ in layers:
                torch.bmm(w, below, out=y)
                below = y
            for i in reversed(range(len(layers))):
                w, _, d, gw, _ = layers[i]
                torch.bmm(d, layers[i - 1][1].mT if i else x, out=gw)
                if i:
                    torch.bmm(w.mT, d, out=layers[i - 1][4])

    return run


def case(
    batch_size: int, steps: int, models: int = MODELS, references: int = REFERENCES, runs: int = 3
) -> dict[str, Any]:
    """Times one batch size.

    Returns:
        One row, in models per second of processor time, with the test accuracies of both ways.

    Raises:
        AssertionError: The ways do not reach the same accuracies.
    """
    problem, net, everyone = Classification(Digits()), MLP(), members(models)
    start = starting_weights(net, everyone)
    found: dict[int, float] = {}
    turn = itertools.cycle(torch.arange(models)[:: max(1, models // (references * runs))].tolist())
    accuracies = torch.empty(0)

    def ours() -> None:
        nonlocal accuracies
        done = train_ensemble(
            net, everyone, problem, steps=steps, batch_size=batch_size, splits=("test",)
        )
        accuracies = done.metrics["test"]["accuracy"][0]

    def one_by_one() -> None:
        for i in itertools.islice(turn, references):
            found[i] = train_one(net, start[i], everyone[i], problem, steps, batch_size)

    part = max(1, steps // BOUND_SHARE)
    tile = min(TILE, models)
    timed = interleave(
        {
            "ours": ours,
            "reference": one_by_one,
            "bound": products(net, tile, batch_size, part),
        },
        runs=runs,
        warmup=1,
    )
    same = accuracies[list(found)]
    theirs = torch.tensor(list(found.values()))
    torch.testing.assert_close(same, theirs, rtol=0, atol=0.03)
    return _row(
        f"{models} MLPs, batch {batch_size}, {steps} steps",
        models,
        _scaled(timed["ours"], 1),
        _scaled(timed["reference"], models / references),
        _scaled(timed["bound"], models / tile * steps / part),
        {"ours": _statistics(accuracies), "ours, same networks": _statistics(same)}
        | {"reference": _statistics(theirs)},
    )


def _scaled(timing: Timing, factor: float) -> Timing:
    return replace(timing, minimum=timing.minimum * factor, median=timing.median * factor)


def _statistics(values: Tensor) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "std": float(values.std(correction=0)),
        "min": float(values.min()),
        "networks": len(values),
    }


def _row(
    label: str,
    models: int,
    ours: Timing,
    reference: Timing,
    bound: Timing,
    accuracy: dict[str, dict[str, float]],
) -> dict[str, Any]:
    return {
        "case": label,
        "metric": "models/s",
        "ours": models / ours.minimum,
        "reference": models / reference.minimum,
        "ratio": reference.minimum / ours.minimum,
        "bound": models / bound.minimum,
        "over_bound": ours.minimum / bound.minimum,
        "median": {
            "ours": models / ours.median,
            "reference": models / reference.median,
            "ratio": reference.median / ours.median,
            "bound": models / bound.median,
        },
        "accuracy": accuracy,
        "runs": ours.runs,
    }


def run(runs: int = 3) -> dict[str, Any]:
    """Runs every case; see `hypergen bench` for the keys."""
    rows = [
        case(batch_size, steps, MODELS, REFERENCES, runs)
        for batch_size, steps in progress(BATCHES.items(), desc="bench zoo_build", unit="case")
    ]
    return {"name": "zoo_build", "rows": rows}
