"""Evaluates a generator on splits of tasks, with every baseline beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.progress import progress
from hypergen._utils.seeding import generator as seeded
from hypergen.evaluation.baselines import (
    METHODS,
    DescriptionBank,
    Scorer,
    derangement,
    describe,
    encode,
    oracles,
)
from hypergen.evaluation.bootstrap import Bootstrap, Scores
from hypergen.evaluation.calibration import calibrate
from hypergen.evaluation.compare import WeightComparison, compare_weights
from hypergen.evaluation.result import Evaluation, SplitResult, summarise
from hypergen.evaluation.zoo import Zoo
from hypergen.generators import Generator
from hypergen.specs import Weights
from hypergen.targets import Target
from hypergen.zoo import TaskSuite


@dataclass(frozen=True)
class Split:
    """What one row of the table is measured on.

    Attributes:
        tasks: Task numbers.
        wordings: Split of the wordings; tasks without a description there are left out.
        limit: Most descriptions of a task; all when None.
    """

    tasks: Sequence[int]
    wordings: str
    limit: int | None = None


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
) -> Evaluation:
    """Scores the generated weights and all baselines on every split.

    - `base`: the unchanged target.
    - `mean`: the mean of the zoo, entry by entry.
    - `nearest`: the zoo's weights of the training description most similar by cosine.
    - `shuffled`: what the generator makes of another task's description.
    - `multitask`: one set of weights trained on all training tasks.
    - `generated`: a task's score is the mean over its descriptions.
    - `oracle`: weights trained on the task itself.

    Args:
        generator: Conditions on the suite's descriptions.
        target: The frozen target.
        suite: The tasks.
        splits: Name → split; `default_splits(suite)` when None.
        zoo: Weights of the training tasks; without them no `mean` and no `nearest`.
        multitask: Weights of batch size 1; without them no `multitask`.
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
    run = _Run(
        generator, suite, scorer, zoo, multitask, trained, bank, seed, resamples, most_compared
    )
    results = {}
    for name, split in progress(splits.items(), desc="evaluating", unit="split"):
        results[name] = run.split(name, split)
    # Calibration is judged on tasks that the generator was not trained on, if there are any.
    fresh = [r for r in results.values() if r.expected is not None and not run.trained_on(r)]
    judged = fresh or [r for r in results.values() if r.expected is not None]
    calibration = None
    if judged:
        calibration = calibrate(
            torch.cat([r.expected for r in judged if r.expected is not None]),
            torch.cat([r.gain for r in judged]),
            torch.cat([r.scores["base"].values[r.scores["generated"].unit] for r in judged]),
        )
    settings = {
        "seed": seed,
        "samples": samples,
        "resamples": resamples,
        "oracle_steps": oracle_steps,
        "oracle_options": dict(oracle_options or {}),
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


@dataclass(frozen=True)
class _Run:
    """What the splits of one evaluation share."""

    generator: Generator
    suite: TaskSuite
    scorer: Scorer
    zoo: Zoo | None
    multitask: Weights | None
    oracle: Zoo | None
    bank: DescriptionBank | None
    seed: int
    resamples: int
    most_compared: int

    def trained_on(self, result: SplitResult) -> bool:
        """Whether the zoo has tasks of this split."""
        return self.zoo is not None and bool(torch.isin(result.tasks, self.zoo.tasks).any())

    def split(self, name: str, split: Split) -> SplitResult:
        """Scores one split."""
        suite, scorer = self.suite, self.scorer
        numbers = [int(t) for t in split.tasks if suite.descriptions[split.wordings][int(t)]]
        tasks = torch.tensor(numbers)
        count = len(tasks)
        texts, unit = describe(suite, numbers, split.wordings, split.limit)
        condition = encode(self.generator, texts)
        zero = torch.zeros(count, dtype=torch.long)
        scores = {"base": Scores.of(scorer.base(tasks))}
        if self.zoo is not None and self.bank is not None:
            scores["mean"] = Scores.of(scorer.score(self.zoo.mean(), zero, tasks))
            found = self.zoo.rows(self.bank.nearest(condition.pooled))
            values = scorer.score(self.zoo.weights, found, tasks[unit])
            scores["nearest"] = Scores(values, unit, count)
        if self.multitask is not None:
            scores["multitask"] = Scores.of(scorer.score(self.multitask, zero, tasks))
        if self.oracle is not None:
            rows = self.oracle.rows(tasks)
            scores["oracle"] = Scores.of(scorer.score(self.oracle.weights, rows, tasks))

        partner = derangement([suite.key(task) for task in numbers], self.seed)
        own, other, expected = [], [], []
        first: list[Weights] = []
        leading = unit.diff(prepend=torch.tensor([-1])) > 0  # a task's first description
        compared = leading & (unit < self.most_compared)
        for part in torch.arange(len(texts)).split(scorer.chunk):
            weights = self.generator.generate(condition=condition[part], seed=self.seed)
            here = torch.arange(len(part))
            own.append(scorer.score(weights, here, tasks[unit[part]]))
            real = partner[unit[part]] >= 0
            if bool(real.any()):
                other.append(scorer.score(weights, here[real], tasks[partner[unit[part][real]]]))
            if weights.expected_gain is not None:
                expected.append(weights.expected_gain.cpu())
            if bool(compared[part].any()):
                first.append(weights[compared[part]])
        scores["generated"] = Scores(torch.cat(own), unit, count)
        if other:
            real = partner[unit] >= 0
            scores["shuffled"] = Scores(torch.cat(other), partner[unit][real], count)
        scores = {method: scores[method] for method in METHODS if method in scores}
        summary = summarise(scores, Bootstrap(count, self.resamples, self.seed))
        names = [suite.names[task] for task in numbers]
        return SplitResult(
            name=name,
            tasks=tasks,
            names=names,
            wordings=split.wordings,
            scores=scores,
            expected=torch.cat(expected) if expected else None,
            weights=self._compare(first, tasks, partner),
            **summary,
        )

    def _compare(
        self, first: list[Weights], tasks: Tensor, partner: Tensor
    ) -> WeightComparison | None:
        if self.oracle is None or not first:
            return None
        generated = Weights.cat(first)
        count = len(generated)
        near = torch.where(partner[:count] < count, partner[:count], -1)
        rows = self.oracle.rows(tasks[:count])
        return compare_weights(generated, self.oracle.weights[rows], near, self.seed)
