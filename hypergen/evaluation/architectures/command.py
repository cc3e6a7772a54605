"""`hypergen evaluate RUN` for the run of a graph hypernetwork."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hypergen._utils.errors import RunError, UsageError
from hypergen.evaluation.architectures.evaluate import evaluate_architectures
from hypergen.evaluation.architectures.inits import evaluate_inits
from hypergen.evaluation.printed import printed
from hypergen.generators import find_run, load
from hypergen.generators.graph import GraphHypernetwork
from hypergen.zoo.architectures.files import load_setting
from hypergen.zoo.architectures.train import NetworkTraining

# Options of `hypergen evaluate` that are for suites of tasks.
_TASKS_ONLY = ("tasks", "stories", "shots", "oracle_steps", "k", "lora_steps", "refine_steps")
_INITS_ONLY = {"against": None, "init_lr": None, "init_noise": 0.0, "init_orthogonal": False}


def architectures_command(args: argparse.Namespace, run: Path) -> dict[str, Any]:
    """Evaluates a graph hypernetwork, prints the table, writes numbers and picture if asked for.

    Args:
        args: `report` (folder or None), `json`, and, if they are there, `samples`, `split` (of the
            architectures: "test" stands for all but train and val, or with `init_steps` for those
            drawn as in training), `architectures` (of a split or kind), `sgd_steps` (of the trained
            networks), `init_steps` (train from generated starts instead), `against` (further runs),
            `init_lr`, `init_noise`, `init_orthogonal`, `optimizer` and `seed`.
        run: The run folder.

    Returns:
        The object of `ArchitectureEvaluation.to_dict` or of `InitEvaluation.to_dict`.

    Raises:
        RunError: A run folder is missing, damaged or not of a graph hypernetwork.
        UsageError: Options that do not go together.
    """
    for name in _TASKS_ONLY:
        if getattr(args, name, None) is not None:
            option = name.replace("_", "-")
            raise UsageError(
                f"--{option} is for suites of tasks: {run.name} is a graph hypernetwork"
            )
    problem, space = load_setting(run)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shared: dict[str, Any] = {
        "samples": getattr(args, "samples", None),
        "seed": getattr(args, "seed", 0),
        "device": device,
    }
    optimizer: Any = getattr(args, "optimizer", "sgd")
    count = getattr(args, "architectures", None)
    steps, sgd_steps = getattr(args, "init_steps", None), getattr(args, "sgd_steps", None)
    split = getattr(args, "split", "test")
    if split not in space.splits(problem.signature):
        raise UsageError(
            f"--split {split}: the run's architectures have the splits "
            f"{', '.join(space.splits(problem.signature))}"
        )
    found: Any
    if steps is None:
        for name, unset in _INITS_ONLY.items():
            if getattr(args, name, unset) != unset:
                raise UsageError(f"--{name.replace('_', '-')} needs --init-steps N")
        rate = 0.1 if optimizer == "sgd" else 1e-3
        training = NetworkTraining(sgd_steps, rate, optimizer) if sgd_steps else None
        found = evaluate_architectures(
            _load(run),
            problem,
            space,
            splits=None if split == "test" else [split],
            count=count or 32,
            training=training,
            **shared,
        )
    else:
        if sgd_steps is not None:
            raise UsageError("--sgd-steps and --init-steps exclude each other")
        others = [find_run(other) for other in getattr(args, "against", None) or []]
        hypernetworks = {run.name: _load(run)}
        for other in others:
            if other.name in hypernetworks:
                raise UsageError(f"--against: two runs are called {other.name!r}")
            hypernetworks[other.name] = _load(other)
        found = evaluate_inits(
            hypernetworks,
            problem,
            space,
            NetworkTraining(steps, optimizer=optimizer),
            rates=getattr(args, "init_lr", None),
            split=split,
            count=count or 8,
            noise=getattr(args, "init_noise", 0.0),
            orthogonal=getattr(args, "init_orthogonal", False),
            **shared,
        )
    return printed(args, found)


def _load(run: Path) -> nn.Module:
    generator = load(run)
    if not isinstance(generator, GraphHypernetwork):
        raise RunError(f"{run} is not the run of a graph hypernetwork")
    return generator
