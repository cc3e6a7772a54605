"""`hypergen evaluate`: a run on tasks of one's own, or on its held-out splits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hypergen._utils.errors import RunError, RunNotFoundError, UsageError
from hypergen.evaluation.assets import RunAssets
from hypergen.evaluation.evaluate import Split, default_splits, evaluate
from hypergen.evaluation.report import write_report
from hypergen.generators import load
from hypergen.targets import make_target
from hypergen.zoo import TaskSuite


def evaluate_command(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluates a run folder, prints the table, writes the report if asked for.

    Args:
        args: `run`, `tasks` (folder of task files, or None for the run's own held-out splits),
            `split` (of the samples), `report` (folder or None), `json`.

    Returns:
        The object of `Evaluation.to_dict`.

    Raises:
        RunError: The run folder is missing or damaged, or is not of a suite of tasks.
        UsageError: No task, or a malformed task file; names the file and the key.
    """
    run = Path(args.run)
    if not run.is_dir():
        raise RunNotFoundError(f"{run} does not exist")
    generator = load(run)
    assets = RunAssets.load(run)
    suite, splits = assets.suite, None
    if getattr(args, "tasks", None) is not None:
        suite = assets.suite.with_tasks(args.tasks)
        splits = given_splits(suite)
    else:
        splits = default_splits(suite)
    target = make_target(suite.load_model(run), generator.spec)
    try:
        evaluation = evaluate(
            generator,
            target,
            suite,
            splits,
            zoo=assets.zoo,
            multitask=assets.multitask,
            bank=assets.bank,
            samples=args.split,
            seed=getattr(args, "seed", 0),
            **assets.settings,
        )
    except KeyError as error:
        if error.args == (args.split,):
            raise UsageError(f"the suite has no samples of the split {args.split!r}") from error
        raise
    if args.json is None:
        print(evaluation.to_table())
    if args.report is not None:
        path = write_report(args.report, evaluation, {"run": run.name})
        if args.json is None:
            print(f"report: {path}")
    return evaluation.to_dict()


def given_splits(suite: TaskSuite, train: str = "train") -> dict[str, Split]:
    """Sorts tasks given in files by what is new about them.

    - `heldout_tasks`: no training task has the same right answers (`TaskSuite.key`);
    - `heldout_wordings`: a training task has, but none of the descriptions was trained on;
    - `seen_wordings`: a description was trained on.

    Raises:
        RunError: The suite has no task split "given".
    """
    if "given" not in suite.task_splits or "given" not in suite.descriptions:
        raise RunError(f"{type(suite).__name__}.extend made no task split 'given'")
    trained = suite.task_splits.get(train, [])
    keys = {suite.key(task) for task in trained}
    wordings = suite.descriptions.get(train)
    sentences = {text for task in trained for text in wordings[task]} if wordings else set()
    splits: dict[str, list[int]] = {}
    for task in suite.task_splits["given"]:
        if not sentences.isdisjoint(suite.descriptions["given"][task]):
            name = "seen_wordings"
        elif suite.key(task) in keys:
            name = "heldout_wordings"
        else:
            name = "heldout_tasks"
        splits.setdefault(name, []).append(task)
    order = ("heldout_tasks", "heldout_wordings", "seen_wordings")
    return {name: Split(splits[name], "given") for name in order if name in splits}
