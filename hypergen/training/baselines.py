"""Baselines of language runs: read from a zoo, trained, and left where evaluation finds them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import RunError, UsageError
from hypergen._utils.io import write_json
from hypergen._utils.progress import progress
from hypergen._utils.seeding import stable_seed
from hypergen.generators.multitask import stored_weights
from hypergen.specs import Weights, WeightSpec
from hypergen.targets import Target
from hypergen.zoo.adapters import train_multitask
from hypergen.zoo.language import AdapterRun, CausalSuite, Prompt, TextTask, train_adapters
from hypergen.zoo.language.suite import TextSuite
from hypergen.zoo.store import Zoo
from hypergen.zoo.tasks import TaskSuite

# As `hypergen.evaluation.RunAssets` reads them; training does not import evaluation.
FOLDER = "baselines"
ZOO, MULTITASK, SETTINGS = "zoo.safetensors", "multitask.safetensors", "settings.json"
MULTITASK_PLAIN = "multitask_plain.safetensors"  # of prompts without descriptions

_AT_ONCE = 8  # adapters that train as one stack


def save_baselines(
    run: Path,
    suite: TaskSuite,
    settings: Mapping[str, Any],
    zoo: tuple[Weights, Tensor] | None,
) -> None:
    """Writes the settings of evaluation and the adapters of the training tasks.

    Args:
        run: The run folder.
        suite: The tasks.
        settings: Arguments of `hypergen.evaluation.evaluate`.
        zoo: Adapters and their task numbers; an older file is removed when not given.
    """
    write_json(run / FOLDER / SETTINGS, dict(settings))
    path = run / FOLDER / ZOO
    path.unlink(missing_ok=True)
    if zoo is not None:
        weights, tasks = zoo
        weights.provenance = {"tasks": [suite.names[task] for task in tasks.tolist()]}
        weights.save(path)


def save_multitask(
    run: Path,
    suite: TaskSuite,
    target: Target,
    tasks: Sequence[int],
    options: Mapping[str, Any],
) -> None:
    """Trains one adapter on all tasks and writes it, unless it is there (of a resumed run).

    Args:
        run: The run folder.
        suite: The tasks.
        target: The frozen model.
        tasks: Task numbers.
        options: Arguments of `train_multitask`; an older file is removed when `steps` is 0.
    """
    path = run / FOLDER / MULTITASK
    if not options["steps"]:
        path.unlink(missing_ok=True)
        return
    made = {
        "suite": suite.to_dict(),
        "spec": target.spec.to_dict(),
        "tasks": list(tasks),
        "options": dict(options),
    }
    made = json.loads(json.dumps(made))  # as it will be read
    if _is_there(path, made):
        return
    weights = train_multitask(target, target.spec, suite, tasks, **options)
    weights.provenance = made
    weights.save(path)


def copy_multitask(run: Path, file: str, source: str, spec: WeightSpec) -> None:
    """Takes a baseline from a run of the generator `MultiTask`.

    Args:
        run: The run folder that gets it.
        file: `MULTITASK` or `MULTITASK_PLAIN`.
        source: The other run folder.
        spec: What it must be.

    Raises:
        RunError: There is no such run, or it is damaged.
        WeightsError: It is of another generator; says which.
        UsageError: It is of another spec; says which.
    """
    weights = stored_weights(source)
    if weights.spec != spec:
        raise UsageError(
            f"{source} holds an adapter for {weights.spec!r}, this recipe generates {spec!r}: "
            "use the same model, dtype and method"
        )
    weights.provenance = {"run": Path(source).name}
    weights.save(run / FOLDER / file)


def _is_there(path: Path, how: dict[str, Any]) -> bool:
    try:
        return path.is_file() and Weights.load(path).provenance == how
    except RunError:
        return False  # damaged: made again


def trained_adapters(
    target: Target,
    suite: TextSuite,
    tasks: Sequence[int],
    *,
    steps: int,
    samples: int,
    lr: float,
    seed: int = 0,
) -> tuple[Weights, list[int]]:
    """Trains an adapter of each task, in stacks.

    Args:
        target: The frozen model.
        suite: The tasks.
        tasks: Task numbers.
        steps: Steps of each adapter.
        samples: Samples of each in a step.
        lr: Peak learning rate.
        seed: Seed of the start, the same for all.

    Returns:
        Adapters, and the number of the task of each.
    """
    # Tasks of similar length train together: little is padded.
    order = sorted(tasks, key=lambda task: _length(suite.tasks[task]))
    groups = [order[i : i + _AT_ONCE] for i in range(0, len(order), _AT_ONCE)]
    start = stable_seed(seed, "adapter")
    parts = [
        train_adapters(
            target,
            target.spec,
            suite,
            [AdapterRun(task=task, seed=start, lr=lr) for task in group],
            steps=steps,
            samples=samples,
            evaluate=(),
        ).weights[-1]
        for group in progress(groups, desc="training adapters", unit="stack")
    ]
    return target.spec.from_flat(torch.cat(parts)), order


def _length(task: TextTask) -> float:
    rows = task.instances["train"]
    return sum(len(row.input) for row in rows) / len(rows)


def stored_adapters(
    zoo: Zoo, suite: CausalSuite, spec: WeightSpec, wanted: Sequence[int]
) -> tuple[Weights, list[int]]:
    """Reads the last checkpoint of each task's first run.

    Args:
        zoo: A zoo of adapters.
        suite: The tasks.
        spec: What the adapters must be.
        wanted: Task numbers; those that the zoo lacks are left out.

    Returns:
        Adapters, and the number of the task of each.

    Raises:
        UsageError: The zoo is of another model, method, prompt or version of a task; says which.
    """
    where = f"the zoo {zoo.folder}"
    asked = zoo.header.provenance.get("recipe", {}).get("options")
    if asked is not None:
        theirs = {**Prompt().to_dict(), **asked.get("prompt", {})}
        if theirs != suite.prompt.to_dict():
            raise UsageError(
                f"{where} was trained with the prompt {theirs}, not with {suite.prompt.to_dict()}: "
                "build it with the same options.prompt"
            )
    last = zoo.select(step="last")
    first: dict[str, int] = {}
    for position, row in enumerate(last.rows):
        first.setdefault(row.task, position)
    found = [task for task in wanted if suite.names[task] in first]
    if not found:
        raise UsageError(f"{where} has no adapter of a training task")
    for task in found:
        name = suite.names[task]
        stored = zoo.header.tasks[name].metadata.get("hash")
        if stored is not None and stored != suite.tasks[task].hash:
            raise UsageError(f"{where} was trained on another version of the task {name!r}")
    view = last[[first[suite.names[task]] for task in found]]
    if view.spec != spec:
        raise UsageError(
            f"{where} holds adapters for {view.spec!r}, this recipe generates {spec!r}: use "
            "the same model, dtype and method"
        )
    return view.weights(), found
