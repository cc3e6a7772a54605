"""One split of an evaluation: every method on the same tasks and the same descriptions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import ConditionError
from hypergen._utils.progress import progress
from hypergen.conditions import Condition
from hypergen.evaluation.baselines import (
    DescriptionBank,
    Scorer,
    derangement,
    describe,
    encode,
    readable,
    shown,
)
from hypergen.evaluation.bootstrap import Bootstrap, Scores
from hypergen.evaluation.compare import WeightComparison, compare_weights
from hypergen.evaluation.result import LABELS, SplitResult, summarise
from hypergen.evaluation.zoo import Zoo
from hypergen.generators import Generator
from hypergen.specs import Weights
from hypergen.zoo import TaskSuite

Found = dict[str, Scores]  # metric → scores of one method


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


@dataclass(frozen=True, eq=False)
class Asked:
    """The tasks of a split and their descriptions.

    Attributes:
        tasks: `[n]` task numbers.
        unit: `[P]`, position in `tasks` of each description.
        shown: `[P]`, its number, as `TaskSuite.score` takes it.
        partner: `[n]`, another task of the split; -1 where there is none.
        per_description: Whether every method depends on the description, since the network is
            shown it.
    """

    tasks: Tensor
    unit: Tensor
    shown: Tensor
    partner: Tensor
    per_description: bool

    def shuffled(self) -> tuple[Tensor, Tensor, Tensor]:
        """Whose weights are tried on whom: description read, task scored, description shown.

        Where the network is shown a description, it stays that of the task: a task's descriptions
        go through in their order, those of the task that the generator reads about likewise.

        Returns:
            `[M]` each: rows of the descriptions that are read, positions in `tasks`, wordings.
        """
        reader = torch.arange(len(self.unit))
        if not self.per_description:
            reader = reader[self.partner[self.unit] >= 0]
            return reader, self.partner[self.unit[reader]], torch.zeros_like(reader)
        counts = torch.bincount(self.unit, minlength=len(self.tasks))
        first = counts.cumsum(0) - counts
        donor = torch.full_like(self.partner, -1)
        real = self.partner >= 0
        donor[self.partner[real]] = real.nonzero()[:, 0]
        kept = reader[donor[self.unit] >= 0]
        other = donor[self.unit[kept]]
        place = (kept - first[self.unit[kept]]) % counts[other]
        return first[other] + place, self.unit[kept], self.shown[kept]


@dataclass(frozen=True)
class SplitRun:
    """What the splits of one evaluation share; `split` scores one of them."""

    generator: Generator
    suite: TaskSuite
    scorer: Scorer
    variants: Mapping[str, Scorer]
    zoo: Zoo | None
    multitask: Weights | None
    multitask_plain: Weights | None
    oracle: Zoo | None
    bank: DescriptionBank | None
    seed: int
    resamples: int
    most_compared: int
    cut: dict[str, int] = field(default_factory=dict)

    def trained_on(self, result: SplitResult) -> bool:
        """Whether the zoo has tasks of this split."""
        return self.zoo is not None and bool(torch.isin(result.tasks, self.zoo.tasks).any())

    def split(self, name: str, split: Split) -> SplitResult:
        """Scores one split."""
        suite = self.suite
        numbers = [int(t) for t in split.tasks if suite.descriptions[split.wordings][int(t)]]
        texts, unit = describe(suite, numbers, split.wordings, split.limit)
        condition = self._encode(name, texts)
        asked = Asked(
            torch.tensor(numbers),
            unit,
            shown(suite, numbers, texts, unit),
            derangement([suite.key(task) for task in numbers], self.seed),
            suite.reads_description,
        )
        with progress(desc=name, unit="score", total=self._total(asked)) as bar:
            found = {}
            for scorer in (self.scorer, *self.variants.values()):
                scorer.done = bar.update
            for method, scorer, weights, rows in self._fixed(asked, condition):
                bar.set_description(f"{name}: {LABELS[method]}")
                found[method] = _fixed_scores(scorer, weights, rows, asked)
            bar.set_description(f"{name}: {LABELS['generated']}")
            generated, expected, first = self._generated(asked, condition)
            found.update(generated)
        scores = {method: found[method]["score"] for method in LABELS if method in found}
        count = len(numbers)
        return SplitResult(
            name=name,
            tasks=asked.tasks,
            names=[suite.names[task] for task in numbers],
            wordings=split.wordings,
            scores=scores,
            metrics=_means(found),
            expected=expected,
            weights=self._compare(first, asked),
            **summarise(scores, Bootstrap(count, self.resamples, self.seed)),
        )

    def _encode(self, name: str, texts: list[str]) -> Condition:
        try:
            return encode(self.generator, texts)
        except ConditionError:  # the definitions of others may be longer than an encoder takes
            whole, texts = texts, readable(self.generator, texts)
            self.cut[name] = sum(a != b for a, b in zip(whole, texts, strict=True))
            return encode(self.generator, texts)

    def _total(self, asked: Asked) -> int:
        """Scores to come, for the bar."""
        tasks, texts = len(asked.tasks), len(asked.unit)
        each = texts if asked.per_description else tasks
        total = each * (1 + (self.multitask is not None) + (self.oracle is not None))
        total += texts + len(asked.shuffled()[0])
        if self.zoo is not None and self.bank is not None:
            total += each + texts
        if "plain" in self.variants:
            total += tasks + texts + (tasks if self.multitask_plain is not None else 0)
        return total + (texts if "incontext" in self.variants else 0)

    def _fixed(
        self, asked: Asked, condition: Condition
    ) -> Iterator[tuple[str, Scorer, Weights | None, Tensor]]:
        """Methods whose weights are there: where they are scored, weights, rows `[n]` or `[P]`."""
        plain = self.variants.get("plain")
        zero = torch.zeros_like(asked.tasks)
        yield "base", self.scorer, None, zero
        if plain is not None:
            yield "base_plain", plain, None, zero
        if "incontext" in self.variants:
            yield "incontext", self.variants["incontext"], None, zero
        if self.zoo is not None and self.bank is not None:
            yield "mean", self.scorer, self.zoo.mean(), zero
            rows = self.zoo.rows(self.bank.nearest(condition.pooled))
            yield "nearest", self.scorer, self.zoo.weights, rows
        if self.multitask is not None:
            yield "multitask", self.scorer, self.multitask, zero
        if plain is not None and self.multitask_plain is not None:
            yield "multitask_plain", plain, self.multitask_plain, zero
        if self.oracle is not None:
            rows = self.oracle.rows(asked.tasks)
            if bool((rows >= 0).any()):
                yield "oracle", self.scorer, self.oracle.weights, rows

    def _generated(
        self, asked: Asked, condition: Condition
    ) -> tuple[dict[str, Found], Tensor | None, list[Weights]]:
        """The methods that generate, expected gains `[P]`, and some of the weights."""
        unit, tasks = asked.unit, asked.tasks
        every = torch.arange(len(unit))
        jobs = {"generated": (self.scorer, every, unit, asked.shown)}
        if "plain" in self.variants:
            jobs["generated_plain"] = (self.variants["plain"], every, unit, asked.shown)
        reader, scored, words = asked.shuffled()
        if len(reader):
            jobs["shuffled"] = (self.scorer, reader, scored, words)
        values: dict[str, dict[str, Tensor]] = {method: {} for method in jobs}
        expected, first = [], []
        leading = unit.diff(prepend=torch.tensor([-1])) > 0  # a task's first description
        compared = leading & (unit < self.most_compared)
        for part in every.split(self.scorer.chunk):
            weights = self.generator.generate(condition=condition[part], seed=self.seed)
            for method, (scorer, rows, places, wordings) in jobs.items():
                here = ((rows >= part[0]) & (rows <= part[-1])).nonzero()[:, 0]
                if not len(here):
                    continue
                at = rows[here] - part[0]
                measured = scorer.measure(weights, at, tasks[places[here]], wordings[here])
                for metric, value in measured.items():
                    all_of_them = values[method].setdefault(metric, torch.empty(len(rows)))
                    all_of_them[here] = value.to(all_of_them.dtype)
            if weights.expected_gain is not None:
                expected.append(weights.expected_gain.cpu())
            if bool(compared[part].any()):
                first.append(weights[compared[part]])
        found = {
            method: {
                metric: Scores(value, jobs[method][2], len(tasks))
                for metric, value in values[method].items()
            }
            for method in jobs
        }
        return found, torch.cat(expected) if expected else None, first

    def _compare(self, first: list[Weights], asked: Asked) -> WeightComparison | None:
        if self.oracle is None or not first:
            return None
        generated = Weights.cat(first)
        rows = self.oracle.rows(asked.tasks[: len(generated)])
        kept = (rows >= 0).nonzero()[:, 0]
        if not len(kept):
            return None
        partner = asked.partner[: len(generated)][kept]
        # Rows of those that are kept; a partner that is not is none.
        place = torch.full((len(asked.tasks) + 1,), -1)
        place[kept] = torch.arange(len(kept))
        oracle = self.oracle.weights[rows[kept]]
        return compare_weights(generated[kept], oracle, place[partner], self.seed)


def _fixed_scores(scorer: Scorer, weights: Weights | None, rows: Tensor, asked: Asked) -> Found:
    """Scores of weights that are there; rows of -1 are left out."""
    count = len(asked.tasks)
    unit, words = torch.arange(count), torch.zeros(count, dtype=torch.long)
    if scorer.suite.reads_description or len(rows) != count:
        unit, words = asked.unit, asked.shown
        rows = rows if len(rows) == len(unit) else rows[unit]
    kept = rows >= 0
    unit, words, rows = unit[kept], words[kept], rows[kept]
    measured = scorer.measure(weights, rows, asked.tasks[unit], words)
    return {metric: Scores(values, unit, count) for metric, values in measured.items()}


def _means(found: Mapping[str, Found]) -> dict[str, dict[str, float]]:
    """Method → what is measured beside the score → its mean over the tasks that have it."""
    out: dict[str, dict[str, float]] = {}
    for method in LABELS:
        further: dict[str, Any] = {
            metric: scores.mean
            for metric, scores in found.get(method, {}).items()
            if metric != "score" and bool(torch.isfinite(scores.per_task).any())
        }
        if further:
            out[method] = further
    return out
