"""What tuning on a few demonstrations adds to generated weights, and what they save of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import ConditionError, UsageError
from hypergen.conditions import Condition
from hypergen.evaluation.baselines import Scorer, describe, encode, oracles, readable, shown
from hypergen.evaluation.bootstrap import Scores
from hypergen.evaluation.methods import Split
from hypergen.evaluation.refinement_result import Curve, Refinement, RefinementSplit
from hypergen.evaluation.zoo import Zoo
from hypergen.generators import Generator
from hypergen.specs import Weights
from hypergen.targets import Target
from hypergen.zoo import TaskSuite, demos_of, refine, search

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # tried on the validation tasks, for each method
_POOL, _SAMPLES = 512, 32  # of ordinary training: samples of a task, and those of a step


@dataclass(frozen=True, eq=False)
class _Asked:
    """Tasks, each with its first description, and what is generated from that."""

    tasks: Tensor
    words: Tensor
    condition: Condition
    generated: Weights


def evaluate_refinement(
    generator: Generator,
    target: Target,
    suite: TaskSuite,
    splits: Mapping[str, Split],
    *,
    steps: Sequence[int] = (0, 5, 20),
    demos: int = 16,
    curve: int = 0,
    rates: Sequence[float] = RATES,
    zoo: Zoo | None = None,
    multitask: Weights | None = None,
    oracle_steps: int = 300,
    oracle_options: Mapping[str, Any] | None = None,
    share: float = 0.95,
    seed: int = 0,
    samples: str = "test",
    train_wordings: str = "train",
    resamples: int = 2000,
    chunk: int = 256,
) -> Refinement:
    """Scores K steps on the same demonstrations, from several starts, on tasks not trained on.

    - `refined`: the generated weights, tuned (`hypergen.refine`);
    - `searched`: the condition tuned, the generator frozen (`hypergen.search`);
    - `multitask`: the weights trained on all training tasks, tuned;
    - `scratch`: the spec's own start, tuned.

    Every method has a learning rate of its own, the one with the highest mean score after the most
    steps on validation tasks (task splits whose names start with `val`); without any, the middle
    one of `rates`.

    Args:
        generator: Conditions on the suite's descriptions.
        target: The frozen target.
        suite: The tasks.
        splits: Name → split; of each task the first description is read.
        steps: Numbers of steps K to score at.
        demos: Demonstrations of each task, from its training samples.
        curve: Steps of ordinary training from the generated weights and from the spec's start, on
            many samples, in which they may reach `share` of the oracle's score; 0 leaves that out.
        rates: Learning rates to choose from.
        zoo: Weights of the training tasks.
        multitask: Weights of batch size 1; without them no `multitask`.
        oracle_steps: As in `hypergen.evaluation.evaluate`.
        oracle_options: As there.
        share: Share of the oracle's score.
        seed: Seed of demonstrations, draws and resampling.
        samples: Split of the samples that scores are measured on.
        train_wordings: Wordings of validation tasks' descriptions.
        resamples: Resamples of the bootstrap.
        chunk: Tasks tuned at a time.

    Raises:
        UsageError: No splits, or bad numbers of steps.
    """
    start = time.perf_counter()
    points = sorted(set(steps))
    if not splits or not points or points[0] < 0 or curve < 0 or not rates:
        raise UsageError("give splits, learning rates, and numbers of steps of 0 or more")
    scorer = Scorer(suite, target, samples)
    spec = target.spec
    runs = _Runs(generator, target, suite, scorer, demos, seed, chunk)
    starts: dict[str, Weights | None] = {
        "refined": None,
        "searched": None,
        **({"multitask": multitask} if multitask is not None else {}),
        "scratch": spec.from_flat(spec.initial(seed)[None]),
    }
    checked = _validation(suite, train_wordings)
    chosen = {m: rates[len(rates) // 2] for m in starts}
    if checked is not None and points[-1]:
        asked = runs.ask(checked)
        for method, own in starts.items():
            found = [
                float(runs.tuned(method, own, asked, [points[-1]], rate)[points[-1]].mean())
                for rate in rates
            ]
            chosen[method] = rates[max(range(len(rates)), key=found.__getitem__)]
    results = {}
    for name, split in splits.items():
        asked = runs.ask(split)
        oracle = oracles(
            target,
            suite,
            asked.tasks,
            zoo,
            steps=oracle_steps,
            **{"seed": seed, **(oracle_options or {})},
        )
        fixed = {"base": Scores.of(scorer.base(asked.tasks, asked.words))}
        if oracle is not None:
            rows = oracle.rows(asked.tasks)
            fixed["oracle"] = Scores.of(
                scorer.score(oracle.weights, rows, asked.tasks, asked.words)
            )
        rows_of: dict[int, dict[str, Scores]] = {k: {} for k in points}
        for method, own in starts.items():
            for k, values in runs.tuned(method, own, asked, points, chosen[method]).items():
                rows_of[k][method] = Scores.of(values)
        reached = None
        if curve and "oracle" in fixed:
            wanted = share * fixed["oracle"].values
            reached = runs.curve(asked, starts["scratch"], curve, chosen, wanted)
        names = [suite.names[int(task)] for task in asked.tasks]
        results[name] = RefinementSplit(name, names, rows_of, fixed, reached, resamples, seed)
    settings = {
        "demonstrations": demos,
        "learning_rates": chosen,
        "chosen_on": [] if checked is None else [suite.names[int(t)] for t in checked.tasks],
        "share": share,
        "seed": seed,
    }
    return Refinement(results, settings, time.perf_counter() - start)


def _validation(suite: TaskSuite, wordings: str) -> Split | None:
    numbers = [
        task
        for name, tasks in suite.task_splits.items()
        if name.startswith("val")
        for task in tasks
        if suite.descriptions.get(wordings, {}) and suite.descriptions[wordings][task]
    ]
    return Split(numbers, wordings, 1) if numbers else None


@dataclass(frozen=True, eq=False)
class _Runs:
    """Tuning runs of one evaluation."""

    generator: Generator
    target: Target
    suite: TaskSuite
    scorer: Scorer
    demos: int
    seed: int
    chunk: int

    def ask(self, split: Split) -> _Asked:
        """Reads the first description of each task and generates."""
        suite = self.suite
        numbers = [int(t) for t in split.tasks if suite.descriptions[split.wordings][int(t)]]
        texts, unit = describe(suite, numbers, split.wordings, 1)
        try:
            condition = encode(self.generator, texts)
        except ConditionError:  # longer than the encoder takes
            condition = encode(self.generator, readable(self.generator, texts))
        parts = [
            self.generator.generate(condition=condition[rows], seed=self.seed)
            for rows in torch.arange(len(numbers)).split(self.chunk)
        ]
        words = shown(suite, numbers, texts, unit)
        return _Asked(torch.tensor(numbers), words, condition, Weights.cat(parts))

    def tuned(
        self, method: str, start: Weights | None, asked: _Asked, points: Sequence[int], rate: float
    ) -> dict[int, Tensor]:
        """Scores `[n]` after each number of steps, tuned on the demonstrations."""
        out: dict[int, list[Tensor]] = {k: [] for k in points}
        for rows in torch.arange(len(asked.tasks)).split(self.chunk):
            tasks = asked.tasks[rows]
            given = demos_of(self.suite, tasks, self.demos, seed=self.seed)
            look = self._look(asked, rows, out)
            options: dict[str, Any] = {"steps": max(points), "lr": rate, "on_step": look}
            if method == "searched":
                search(self.generator, asked.condition[rows], self.target, given, **options)
            else:
                own = asked.generated[rows] if start is None else start[torch.zeros_like(rows)]
                refine(own, self.target, given, **options)
        return {k: torch.cat(values) for k, values in out.items()}

    def _look(
        self, asked: _Asked, rows: Tensor, out: dict[int, list[Tensor]]
    ) -> Callable[[int, Weights], None]:
        def look(step: int, weights: Weights) -> None:
            if step in out:
                here = torch.arange(len(rows))
                scores = self.scorer.score(weights, here, asked.tasks[rows], asked.words[rows])
                out[step].append(scores)

        return look

    def curve(
        self,
        asked: _Asked,
        scratch: Weights | None,
        steps: int,
        rates: Mapping[str, float],
        wanted: Tensor,
    ) -> Curve:
        """Steps of ordinary training until a score is reached, from both starts."""
        points = sorted({*range(min(10, steps) + 1), *_spaced(steps)})
        first: dict[str, Tensor] = {}
        for name, start, rate in (
            ("generated", None, rates["refined"]),
            ("scratch", scratch, rates["scratch"]),
        ):
            out: dict[int, list[Tensor]] = {k: [] for k in points}
            for rows in torch.arange(len(asked.tasks)).split(self.chunk):
                own = asked.generated[rows] if start is None else start[torch.zeros_like(rows)]
                many = demos_of(self.suite, asked.tasks[rows], _POOL, seed=self.seed)
                refine(
                    own,
                    self.target,
                    many,
                    steps=steps,
                    lr=rate,
                    samples=_SAMPLES,
                    seed=self.seed,
                    on_step=self._look(asked, rows, out),
                )
            scores = torch.stack([torch.cat(out[k]) for k in points])  # [points, n]
            reached = scores >= wanted
            at = torch.tensor(points)[reached.int().argmax(0)]
            first[name] = torch.where(reached.any(0), at, -1)
        return Curve(steps, first)


def _spaced(steps: int) -> list[int]:
    """Numbers of steps that grow by a fifth."""
    out, value = [steps], 10.0
    while value < steps:
        out.append(round(value))
        value *= 1.2
    return out
