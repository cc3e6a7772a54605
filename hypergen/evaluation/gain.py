"""Measures what generated weights win on held-out tasks, and teaches the generator to say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.seeding import generator as seeded
from hypergen.conditions import Condition
from hypergen.evaluation.baselines import Scorer, describe, encode, shown
from hypergen.generators import GainHead, Generator
from hypergen.generators.gain import points
from hypergen.targets import Target
from hypergen.zoo import TaskSuite


@dataclass(frozen=True, eq=False)
class MeasuredGain:
    """What the generated weights of some conditions won.

    Attributes:
        condition: `P` conditions.
        tasks: `[P]`, their task numbers.
        gain: `[P]`, score of the generated weights minus that of the base.
        base: `[P]`, score of the base.
    """

    condition: Condition
    tasks: Tensor
    gain: Tensor
    base: Tensor


@dataclass(frozen=True)
class GainFit:
    """How well the expected gain was learnt.

    Attributes:
        conditions: Conditions that the head keeps.
        tasks: Tasks that they belong to.
        rmse: Root mean squared error, each task predicted from the others.
        rmse_constant: That of always stating the mean gain.
    """

    conditions: int
    tasks: int
    rmse: float
    rmse_constant: float


def measure_gain(
    generator: Generator,
    target: Target,
    suite: TaskSuite,
    tasks: Sequence[int],
    wordings: str | Sequence[str],
    *,
    samples: str = "val",
    limit: int | None = None,
    seed: int = 0,
    chunk: int = 512,
) -> MeasuredGain:
    """Generates weights for every description of some tasks and scores them against the base.

    Args:
        generator: The generator.
        target: The frozen target.
        suite: The tasks.
        tasks: Task numbers.
        wordings: One or several splits of wordings.
        samples: Split of the samples that scores are measured on.
        limit: Most descriptions of a task in each split of wordings.
        seed: Seed of generation.
        chunk: Networks generated at a time.

    Raises:
        UsageError: The tasks have no description in these wordings.
    """
    texts: list[str] = []
    units, words = [], []
    for split in [wordings] if isinstance(wordings, str) else wordings:
        some, unit = describe(suite, tasks, split, limit)
        texts += some
        units.append(unit)
        words.append(shown(suite, tasks, some, unit))
    if not texts:
        raise UsageError(f"the {len(tasks)} tasks have no description in the wordings {wordings!r}")
    unit, asked = torch.cat(units), torch.cat(words)
    numbers = torch.as_tensor(tasks, dtype=torch.long)
    condition = encode(generator, texts)
    scorer = Scorer(suite, target, samples, chunk)
    scores = []
    for part in torch.arange(len(texts)).split(chunk):
        weights = generator.generate(condition=condition[part], seed=seed)
        here = torch.arange(len(part))
        scores.append(scorer.score(weights, here, numbers[unit[part]], asked[part]))
    base = scorer.base(numbers[unit], asked)
    return MeasuredGain(condition, numbers[unit], torch.cat(scores) - base, base)


def fit_gain(
    generator: Generator,
    target: Target,
    suite: TaskSuite,
    tasks: Sequence[int],
    wordings: str | Sequence[str],
    *,
    samples: str = "val",
    limit: int | None = 3,
    most: int = 512,
    prior: float = 0.0,
    seed: int = 0,
    chunk: int = 512,
) -> GainFit:
    """Fits the generator's expected-gain head on held-out validation tasks.

    The tasks must be neither training tasks, on which every generator looks better than it is,
    nor those of the final evaluation. Tasks with the same right answers (`TaskSuite.key`) count as
    one when the fit leaves tasks out.

    Args:
        generator: Gets the head as `generator.gain`; saved and loaded with it.
        target: The frozen target.
        suite: The tasks.
        tasks: Numbers of validation tasks, at least two.
        wordings: One or several splits of wordings.
        samples: Split of the samples that gains are measured on.
        limit: Most descriptions of a task in each split of wordings.
        most: Most conditions that the head keeps, drawn at random if there are more.
        prior: Gain expected of a condition unlike any measured one.
        seed: Seed of generation and of that draw.
        chunk: Networks generated at a time.

    Raises:
        UsageError: Fewer than two different tasks, or none described in these wordings.
    """
    generator.gain = None  # measured without the head that is being fitted
    found = measure_gain(
        generator,
        target,
        suite,
        tasks,
        wordings,
        samples=samples,
        limit=limit,
        seed=seed,
        chunk=chunk,
    )
    return fit_head(generator, suite, found, most=most, prior=prior, seed=seed)


def fit_head(
    generator: Generator,
    suite: TaskSuite,
    found: MeasuredGain,
    *,
    most: int = 512,
    prior: float = 0.0,
    seed: int = 0,
) -> GainFit:
    """Fits a generator's expected-gain head on gains that were measured.

    Args:
        generator: Gets the head as `generator.gain`.
        suite: The tasks; those with the same right answers count as one.
        found: The measured gains.
        most: Most conditions that the head keeps, drawn at random if there are more.
        prior: Gain expected of a condition unlike any measured one.
        seed: Seed of that draw.

    Raises:
        UsageError: Fewer than two different tasks.
    """
    count = len(found.gain)
    keep = torch.randperm(count, generator=seeded("gain", seed))[:most].sort().values
    condition = found.condition.detach()[keep]
    signals = 0 if condition.signals is None else condition.signals.shape[1]
    pooled = points(condition, signals)
    tasks = found.tasks[keep].tolist()
    every = [suite.key(task) for task in found.tasks.tolist()]
    names = {key: i for i, key in enumerate(dict.fromkeys(every))}
    group = torch.tensor([names[suite.key(task)] for task in tasks])
    if len(group.unique()) < 2:
        raise UsageError("the expected gain is fitted on at least two different validation tasks")
    head = GainHead(condition.dim, len(keep), signals).to(pooled.device)
    gain = found.gain[keep].to(pooled.device, pooled.dtype)
    rmse = head.fit(pooled, gain, group.to(pooled.device), prior)
    generator.gain = head
    return GainFit(len(keep), len(group.unique()), rmse, float(gain.std(correction=0)))
