"""`hypergen evaluate`: a run on tasks of one's own, or on its held-out splits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from hypergen._utils.errors import RunError, UsageError
from hypergen.evaluation.architectures.command import architectures_command
from hypergen.evaluation.assets import RunAssets
from hypergen.evaluation.evaluate import default_splits, evaluate
from hypergen.evaluation.few_shot import evaluate_few_shot
from hypergen.evaluation.images_command import images_command
from hypergen.evaluation.methods import Split
from hypergen.evaluation.printed import printed
from hypergen.evaluation.properties_command import properties_command
from hypergen.evaluation.refinement import evaluate_refinement
from hypergen.evaluation.report import write_report
from hypergen.evaluation.stories_command import stories_command
from hypergen.evaluation.zoo_command import zoo_command
from hypergen.generators import Generator, find_run, load_generator
from hypergen.targets import Target, make_target
from hypergen.zoo import TaskSuite
from hypergen.zoo.architectures.files import FILE as ARCHITECTURES
from hypergen.zoo.reading.record import has_record


def evaluate_command(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluates a run folder, prints the table, writes the report if asked for.

    Args:
        args: `run` (a folder, or the name of one that ships), `tasks` (folder of task files, or
            None for the run's own held-out splits), `split` (of the samples), `report` (folder or
            None), `json`; and, if they are there, `samples` and `descriptions` (most of a task),
            `shots`, `oracle_steps`, `no_oracle`, `k` (numbers of demonstrations, see
            `evaluate_few_shot`) and `lora_steps`, `refine_steps` (see `evaluate_refinement`),
            `refine_demos` and `refine_curve`. With `stories`, see `stories_command`; for the run of
            a graph hypernetwork, `architectures_command`; with `properties`, `properties_command`;
            with `images`, `images_command`.

    Returns:
        The object of `Evaluation.to_dict` (with `k`, of `FewShot.to_dict`), and under `skipped` a
        sentence for each task of the folder that was left out.

    Raises:
        RunError: The run folder is missing or damaged, or is not of a suite of tasks.
        UsageError: No task, or a malformed task file; names the file and the key.
    """
    if getattr(args, "stories", None) is not None:
        return stories_command(args)
    run = find_run(args.run)
    if (run / ARCHITECTURES).is_file():
        return architectures_command(args, run)
    if getattr(args, "properties", None) is not None:
        return properties_command(args, run)
    if getattr(args, "images", None) is not None:
        return images_command(args, run)
    if has_record(run):
        return zoo_command(args, run)
    generator = load_generator(run)
    assets = RunAssets.load(run)
    suite, limit = assets.suite, getattr(args, "descriptions", 3)
    skipped: list[str] = []
    if getattr(args, "tasks", None) is not None:
        suite = assets.suite.with_tasks(args.tasks)
        splits, skipped = given_splits(suite, samples=args.split, limit=limit)
        for sentence in skipped:
            print(f"hypergen: left out: {sentence}", file=sys.stderr)
    else:
        splits = default_splits(suite, limit=limit)
        if not splits and not suite.names:
            raise UsageError(f"{run.name} ships without tasks: give some with --tasks DIR")
    if getattr(args, "samples", None) is not None:
        if not hasattr(suite, "eval_samples"):
            raise UsageError(f"--samples: {type(suite).__name__} always takes all samples")
        suite.eval_samples = args.samples
    target = make_target(suite.load_model(run), generator.spec)
    left_out = {"skipped": skipped} if skipped else {}
    if getattr(args, "k", None) is not None:
        return _few_shot(args, generator, target, suite, splits, assets) | left_out
    if getattr(args, "refine_steps", None) is not None:
        return _refinement(args, generator, target, suite, splits, assets) | left_out
    try:
        evaluation = evaluate(
            generator,
            target,
            suite,
            splits,
            zoo=assets.zoo,
            multitask=assets.multitask,
            multitask_plain=assets.multitask_plain,
            bank=assets.bank,
            samples=args.split,
            seed=getattr(args, "seed", 0),
            **{**assets.settings, **_settings(args)},
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
    return evaluation.to_dict() | left_out


def _few_shot(
    args: argparse.Namespace,
    generator: Generator,
    target: Target,
    suite: TaskSuite,
    splits: Mapping[str, Split],
    assets: RunAssets,
) -> dict[str, Any]:
    """Evaluates k demonstrations, prints the table, writes numbers and plots if asked for."""
    # The run's own splits: tasks that it was not trained on, not its tasks in other words.
    unseen = {name: split for name, split in splits.items() if not name.endswith("_wordings")}
    if getattr(args, "tasks", None) is None and not unseen:
        raise UsageError("--k: the run has no held-out tasks; give some with --tasks DIR")
    settings = {**assets.settings, **_settings(args)}
    names = ("oracle_steps", "oracle_options", "chunk")
    given = {name: settings[name] for name in names if name in settings}
    if getattr(args, "lora_steps", None) is not None:
        given["lora_steps"] = args.lora_steps
    found = evaluate_few_shot(
        generator,
        target,
        suite,
        unseen or splits,
        args.k,
        zoo=assets.zoo,
        multitask=assets.multitask,
        samples=args.split,
        seed=getattr(args, "seed", 0),
        **given,
    )
    return printed(args, found)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says in place of what the run was trained with."""
    names = ("shots", "oracle_steps")
    given = {k: getattr(args, k) for k in names if getattr(args, k, None) is not None}
    return given | ({"oracle_steps": 0} if getattr(args, "no_oracle", False) else {})


def _refinement(
    args: argparse.Namespace,
    generator: Generator,
    target: Target,
    suite: TaskSuite,
    splits: Mapping[str, Split],
    assets: RunAssets,
) -> dict[str, Any]:
    """Tuning on demonstrations, of the splits whose tasks were not trained on if there are any."""
    trained = set(suite.task_splits.get("train", []))
    unseen = {n: s for n, s in splits.items() if not trained.intersection(map(int, s.tasks))}
    settings = {**assets.settings, **_settings(args)}
    known = ("oracle_steps", "oracle_options", "train_wordings", "chunk")
    refinement = evaluate_refinement(
        generator,
        target,
        suite,
        unseen or splits,
        steps=args.refine_steps,
        demos=args.refine_demos,
        curve=args.refine_curve,
        zoo=assets.zoo,
        multitask=assets.multitask,
        samples=args.split,
        seed=getattr(args, "seed", 0),
        **{k: settings[k] for k in known if k in settings},
    )
    if args.json is None:
        print(refinement.to_table())
    return refinement.to_dict()


def given_splits(
    suite: TaskSuite, train: str = "train", samples: str = "test", limit: int | None = None
) -> tuple[dict[str, Split], list[str]]:
    """Sorts tasks given in files by what is new about them.

    - `heldout_tasks`: no training task has the same right answers (`TaskSuite.key`);
    - `heldout_wordings`: a training task has, but none of the descriptions was trained on;
    - `seen_wordings`: a description (or the task as it is) was trained on.

    Args:
        suite: Made by `TaskSuite.with_tasks`.
        train: Task split that the generator was trained on.
        samples: Split of the samples that are scored.
        limit: Most descriptions of a task.

    Returns:
        The splits, and a sentence for each task that was left out: those whose files could not be
        read (`skipped` of the suite), and those without samples.

    Raises:
        RunError: The suite has no task split "given".
        UsageError: No task is left.
    """
    if "given" not in suite.task_splits or "given" not in suite.descriptions:
        raise RunError(f"{type(suite).__name__}.extend made no task split 'given'")
    trained = suite.task_splits.get(train, [])
    keys = {suite.key(task) for task in trained}
    wordings = suite.descriptions.get(train)
    sentences = {text for task in trained for text in wordings[task]} if wordings else set()
    splits: dict[str, list[int]] = {}
    skipped = [" ".join(str(error).split()) for error in getattr(suite, "skipped", ())]
    for task in suite.task_splits["given"]:
        if not suite.has_samples(task, samples):
            skipped.append(f"task {suite.names[task]!r} has no samples in the split {samples!r}")
            continue
        known = not sentences.isdisjoint(suite.descriptions["given"][task])
        if known or suite.was_trained_on(task):
            name = "seen_wordings"
        elif suite.key(task) in keys:
            name = "heldout_wordings"
        else:
            name = "heldout_tasks"
        splits.setdefault(name, []).append(task)
    order = ("heldout_tasks", "heldout_wordings", "seen_wordings")
    if not splits:
        raise UsageError(skipped[0] if skipped else "there is no task to evaluate on")
    return {n: Split(splits[n], "given", limit) for n in order if n in splits}, skipped
