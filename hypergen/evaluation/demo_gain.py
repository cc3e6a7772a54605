"""The expected gain of generators that read demonstrations, also of those that contradict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.seeding import generator as seeded
from hypergen.conditions import Condition, FusedEncoder
from hypergen.conditions.demos import Pair
from hypergen.evaluation.baselines import Scorer
from hypergen.evaluation.gain import GainFit, MeasuredGain, fit_head
from hypergen.generators import Generator
from hypergen.targets import Target
from hypergen.zoo.language import CausalSuite
from hypergen.zoo.language.few_shot import demonstrations

Damage = Literal["none", "shuffled", "contradictory"]
DAMAGES: tuple[Damage, ...] = ("none", "shuffled", "contradictory")


def damaged(demos: Sequence[Pair], how: Damage, seed: int = 0) -> list[Pair]:
    """Demonstrations that say less than they seem to.

    Args:
        demos: Pairs of input and output.
        how: `"none"`: as they are. `"shuffled"`: outputs in another, random order.
            `"contradictory"`: each input once with its own output and once with another's.
        seed: Seed of the order.

    Returns:
        As many pairs as there were. Where all outputs are equal, shuffling changes nothing.

    Raises:
        UsageError: Another word for `how`.
    """
    if how not in DAMAGES:
        raise UsageError(f"there is no damage {how!r}.{did_you_mean(how, DAMAGES)}")
    demos = list(demos)
    if how == "none" or len(demos) < 2:
        return demos
    order = torch.randperm(len(demos), generator=seeded("damaged", seed, how)).tolist()
    mixed = [demos[i] for i in order]
    if how == "shuffled":
        # Outputs apart from their own inputs, as far as they differ.
        outputs = [output for _, output in mixed]
        turns = [outputs[i:] + outputs[:i] for i in range(1, len(outputs))]
        best = max(turns, key=lambda t: sum(a != b for a, b in zip(t, outputs, strict=True)))
        return [(given, output) for (given, _), output in zip(mixed, best, strict=True)]
    out: list[Pair] = []
    for given, output in mixed[: (len(mixed) + 1) // 2]:
        other = next((o for _, o in mixed if o != output), output)
        out += [(given, output), (given, other)]
    return out[: len(demos)]


def measure_demo_gain(
    generator: Generator,
    target: Target,
    suite: CausalSuite,
    tasks: Sequence[int],
    ks: Sequence[int] = (4, 8, 16),
    *,
    damages: Sequence[Damage] = DAMAGES,
    draws: int = 2,
    samples: str = "test",
    seed: int = 0,
    chunk: int = 64,
) -> MeasuredGain:
    """Generates weights from demonstrations of some tasks, sound and damaged, and scores them.

    Args:
        generator: Reads demonstrations, and perhaps descriptions: then each task's first.
        target: The frozen target.
        suite: The tasks.
        tasks: Task numbers; those without demonstrations are left out.
        ks: Numbers of demonstrations.
        damages: What is done to them, see `damaged`.
        draws: Draws of each number.
        samples: Split of the samples that scores are measured on.
        seed: Seed of the draws and of generation.
        chunk: Networks generated at a time.

    Returns:
        Conditions in the order of tasks, ks, draws and damages.

    Raises:
        UsageError: No task has demonstrations.
    """
    rows: list[tuple[int, list[Pair]]] = []
    for task in tasks:
        for k in ks:
            for draw in range(draws):
                chosen = demonstrations(suite.tasks[task], k, seed + draw)
                own = [(row.input, row.outputs[0]) for row in chosen]
                rows += [(task, damaged(own, how, seed + draw)) for how in damages if own]
    if not rows:
        raise UsageError(f"none of the {len(tasks)} tasks has demonstrations")
    numbers = torch.tensor([task for task, _ in rows])
    inputs: dict[str, Any] = {"demos": [demos for _, demos in rows]}
    encoder = generator.encoder
    if isinstance(encoder, FusedEncoder) and "text" in encoder.encoders:
        inputs["text"] = [suite.tasks[task].descriptions[0] for task, _ in rows]
    with torch.no_grad():
        condition: Condition = generator.encode(**inputs)
    scorer = Scorer(suite, target, samples, chunk)
    words = torch.zeros_like(numbers)
    scores = []
    kept, generator.gain = generator.gain, None
    try:
        for part in torch.arange(len(rows)).split(chunk):
            weights = generator.generate(condition=condition[part], seed=seed)
            here = torch.arange(len(part))
            scores.append(scorer.score(weights, here, numbers[part], words[part]))
    finally:
        generator.gain = kept
    base = scorer.base(numbers, words)
    return MeasuredGain(condition, numbers, torch.cat(scores) - base, base)


def fit_demo_gain(
    generator: Generator,
    target: Target,
    suite: CausalSuite,
    tasks: Sequence[int],
    ks: Sequence[int] = (4, 8, 16),
    *,
    most: int = 512,
    prior: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> GainFit:
    """Fits the expected-gain head on sound and damaged demonstrations of validation tasks.

    The head reads the condition's signals beside its pooled vector, and gets to see what
    demonstrations are worth that contradict each other; what it then says is learned, not set: a
    generator that does no worse with shuffled outputs is expected to do no worse.

    Args:
        generator: Gets the head as `generator.gain`; saved and loaded with it.
        target: The frozen target.
        suite: The tasks.
        tasks: Numbers of validation tasks, at least two.
        ks: Numbers of demonstrations.
        most: Most conditions that the head keeps.
        prior: Gain expected of a condition unlike any measured one.
        seed: Seed of all draws.
        **options: Further arguments of `measure_demo_gain`.

    Raises:
        UsageError: Fewer than two different tasks, or none with demonstrations.
    """
    found = measure_demo_gain(generator, target, suite, tasks, ks, seed=seed, **options)
    return fit_head(generator, suite, found, most=most, prior=prior, seed=seed)
