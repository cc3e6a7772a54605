"""Evaluates a generator on splits of tasks, with every baseline beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.seeding import generator as seeded
from hypergen.evaluation.baselines import DescriptionBank, Scorer, oracles
from hypergen.evaluation.calibration import calibrate
from hypergen.evaluation.methods import Split, SplitRun
from hypergen.evaluation.result import Evaluation
from hypergen.evaluation.zoo import Zoo
from hypergen.generators import Generator
from hypergen.specs import Weights
from hypergen.targets import Target
from hypergen.zoo import TaskSuite


def default_splits(
    suite: TaskSuite,
    train: str = "train",
    seen: str = "train",
    limit: int | None = 3,
    most: int | None = 250,
    seed: int = 0,
) -> dict[str, Split]:
    """The splits that a suite has by its names.

    Held-out tasks (every task split whose name starts with `heldout`) in the wordings seen in
    training; training tasks in held-out wordings (`heldout_wordings`), and the same tasks in seen
    ones (`seen_wordings`) for comparison.

    Args:
        suite: The tasks.
        train: Task split that the generator was trained on.
        seen: Wordings that the generator was trained on.
        limit: Most descriptions of a task.
        most: Most training tasks, drawn at random; all when None.
        seed: Seed of that draw.
    """
    splits = {
        name: Split(tasks, seen, limit)
        for name, tasks in suite.task_splits.items()
        if name.startswith("heldout") and any(suite.descriptions[seen][t] for t in tasks)
    }
    reserved = suite.descriptions.get("heldout")
    trained = [t for t in suite.task_splits.get(train, []) if reserved and reserved[t]]
    order = torch.randperm(len(trained), generator=seeded("splits", seed))
    trained = [trained[i] for i in order[:most].sort().values]
    if trained:
        splits["heldout_wordings"] = Split(trained, "heldout", limit)
        splits["seen_wordings"] = Split(trained, seen, limit)
    return splits


def evaluate(
    generator: Generator,
    target: Target,
    suite: TaskSuite,
    splits: Mapping[str, Split] | None = None,
    *,
    zoo: Zoo | None = None,
    multitask: Weights | None = None,
    multitask_plain: Weights | None = None,
    bank: DescriptionBank | None = None,
    oracle: Zoo | None = None,
    oracle_steps: int = 300,
    oracle_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    samples: str = "test",
    train_wordings: str = "train",
    resamples: int = 2000,
    chunk: int = 512,
    most_compared: int = 256,
    shots: int = 3,
) -> Evaluation:
    """Scores the generated weights and all baselines on every split.

    - `base`: the unchanged target.
    - `mean`: the mean of the zoo, entry by entry.
    - `nearest`: the zoo's weights of the training description most similar by cosine.
    - `shuffled`: what the generator makes of another task's description.
    - `multitask`: one set of weights trained on all training tasks.
    - `generated`: a task's score is the mean over its descriptions.
    - `oracle`: weights trained on the task itself.

    Where the network is shown a description too (`TaskSuite.reads_description`), it is shown the
    very one that the generator reads, by every method, so that differences are paired; to
    `shuffled` its own task's. Then there are also `base_plain`, `multitask_plain` and
    `generated_plain`, to which no description is shown, and `incontext`: the unchanged target, with
    the description and demonstrations of the task.

    Args:
        generator: Conditions on the suite's descriptions.
        target: The frozen target.
        suite: The tasks.
        splits: Name → split; `default_splits(suite)` when None.
        zoo: Weights of the training tasks; without them no `mean` and no `nearest`.
        multitask: Weights of batch size 1; without them no `multitask`.
        multitask_plain: Weights of batch size 1, trained without descriptions being shown.
        bank: The descriptions that `nearest` searches; those of the zoo's tasks in
            `train_wordings` are encoded when not given.
        oracle: Oracle weights that are there already; those of the zoo are used in any case.
        oracle_steps: Steps to train the other oracles in; 0 leaves `oracle` out where one is
            missing.
        oracle_options: Further arguments of `hypergen.zoo.train_weights` (samples, lr, …), best
            those that the zoo was trained with.
        seed: Seed of generation, resampling, shuffling and oracles.
        samples: Split of the samples that scores are measured on.
        train_wordings: The wordings that the generator was trained on.
        resamples: Resamples of the bootstrap.
        chunk: Networks generated or scored at a time.
        most_compared: Most tasks of a split whose weights are compared with the oracle's.
        shots: Most demonstrations of `incontext`; 0 leaves it out.

    Raises:
        UsageError: An unknown wording, or a split without tasks or descriptions.
    """
    start = time.perf_counter()
    splits = default_splits(suite) if splits is None else dict(splits)
    _check(suite, splits)
    scorer = Scorer(suite, target, samples, chunk)
    known = _join(zoo, oracle)
    everything = torch.tensor(sorted({int(t) for s in splits.values() for t in s.tasks}))
    trained = oracles(
        target,
        suite,
        everything,
        known,
        steps=oracle_steps,
        chunk=chunk,
        **{"seed": seed, **(oracle_options or {})},
    )
    if zoo is not None and bank is None:
        bank = DescriptionBank.encode(generator, suite, zoo.tasks.unique().tolist(), train_wordings)
    variants = {
        name: Scorer(variant, target, samples, chunk)
        for name, variant in suite.prompt_variants(shots).items()
    }
    run = SplitRun(
        generator,
        suite,
        scorer,
        variants,
        zoo,
        multitask,
        multitask_plain,
        trained,
        bank,
        seed,
        resamples,
        most_compared,
    )
    results = {name: run.split(name, split) for name, split in splits.items()}
    # Calibration is judged on tasks that the generator was not trained on, if there are any.
    fresh = [r for r in results.values() if r.expected is not None and not run.trained_on(r)]
    judged = fresh or [r for r in results.values() if r.expected is not None]
    calibration = None
    if judged:
        calibration = calibrate(
            torch.cat([r.expected for r in judged if r.expected is not None]),
            torch.cat([r.gain for r in judged]),
            torch.cat([r.base for r in judged]),
        )
    settings = {
        "seed": seed,
        "samples": samples,
        "resamples": resamples,
        "oracle_steps": oracle_steps,
        "oracle_options": dict(oracle_options or {}),
        "shots": shots if "incontext" in variants else 0,
        "descriptions_cut_for_the_encoder": run.cut,
        "generator": type(generator).__name__,
        "generator_config": generator.config,
        "encoder": type(generator.encoder).__name__,
        "spec": repr(generator.spec),
        "suite": type(suite).__name__,
        "calibrated_on": [r.name for r in judged],
    }
    return Evaluation(results, calibration, settings, time.perf_counter() - start)


def _check(suite: TaskSuite, splits: Mapping[str, Split]) -> None:
    if not splits:
        raise UsageError("nothing to evaluate: the suite has no held-out tasks or wordings")
    for name, split in splits.items():
        if split.wordings not in suite.descriptions:
            raise UsageError(
                f"split {name!r} asks for the wordings {split.wordings!r}, which the suite lacks."
                f"{did_you_mean(split.wordings, suite.descriptions)}"
            )
        if not any(suite.descriptions[split.wordings][t] for t in split.tasks):
            raise UsageError(f"split {name!r} has no task with a description in {split.wordings!r}")


def _join(zoo: Zoo | None, oracle: Zoo | None) -> Zoo | None:
    if zoo is None or oracle is None:
        return zoo or oracle
    return Zoo(Weights.cat([oracle.weights, zoo.weights]), torch.cat([oracle.tasks, zoo.tasks]))
