"""How much k demonstrations are worth: to a generator, in the prompt, and to training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import ConditionError, UsageError
from hypergen._utils.progress import progress
from hypergen.conditions import Condition
from hypergen.evaluation.baselines import (
    Scorer,
    derangement,
    describe,
    oracles,
    readable,
    shown,
)
from hypergen.evaluation.bootstrap import Scores
from hypergen.evaluation.few_shot_result import FewShot, FewShotSplit
from hypergen.evaluation.methods import Split
from hypergen.evaluation.zoo import Zoo
from hypergen.generators import Generator
from hypergen.specs import Weights
from hypergen.targets import Target
from hypergen.zoo import TaskSuite, train_weights
from hypergen.zoo.language import CausalSuite
from hypergen.zoo.language.few_shot import few_shot

SHOT_TOKENS = 1024  # most tokens of demonstrations in a prompt


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a split asks for: descriptions of its tasks, each with demonstrations of its own draw.

    Attributes:
        suite: Where the tasks are.
        pairs: `P` task numbers and wordings.
        texts: The `P` descriptions.
        unit: `[P]`, position of the task among those of the split.
        count: Number of tasks.
    """

    suite: CausalSuite
    pairs: list[tuple[int, int]]
    texts: list[str]
    unit: Tensor
    count: int

    def scores(self, values: Tensor, kept: Tensor | None = None) -> Scores:
        """Of all, or of those that are kept."""
        unit = self.unit if kept is None else self.unit[kept]
        return Scores(values, unit, self.count)


def evaluate_few_shot(
    generator: Generator,
    target: Target,
    suite: TaskSuite,
    splits: Mapping[str, Split],
    ks: Sequence[int] = (0, 1, 4, 16),
    *,
    zoo: Zoo | None = None,
    multitask: Weights | None = None,
    oracle_steps: int = 0,
    oracle_options: Mapping[str, Any] | None = None,
    lora_steps: int = 60,
    seed: int = 0,
    samples: str = "test",
    resamples: int = 2000,
    chunk: int = 64,
) -> FewShot:
    """Scores what is made of k demonstrations of each task, in three ways, and what needs none.

    - `generated`: the generator reads the demonstrations (and the description, if it reads both).
    - `incontext`: the unchanged model is shown the same demonstrations behind the description; as
      many as fit in 1024 tokens. Only where the prompt holds a description.
    - `lora`: weights of the generator's spec, trained on the same demonstrations for `lora_steps`
      steps from the spec's start.
    - `shuffled`: generated from description and demonstrations of another task.
    - `generated_plain`: as `generated`, the model being shown no description.
    - `base`, `mean`, `multitask`, `oracle`: as in `evaluate`; without demonstrations, so the same
      for every k.

    Demonstrations are training instances of the task, or examples of its definition, drawn by the
    seed (`hypergen.zoo.language.few_shot.demonstrations`); never an input that is scored. All rows
    get the same ones, each description of a task another draw, and those of a smaller k are among
    those of a larger.

    Args:
        generator: Reads demonstrations.
        target: The frozen target.
        suite: Text tasks that a language model answers.
        splits: Name → split.
        ks: Numbers of demonstrations; 0 is left out for a generator that reads no descriptions.
        zoo: Weights of the training tasks, for `mean`.
        multitask: Weights of batch size 1.
        oracle_steps: Steps to train each task's own weights in, on all its instances; 0 for none.
        oracle_options: Further arguments of `hypergen.zoo.train_weights` for `oracle` and `lora`.
        lora_steps: Steps of `lora`; 0 for none.
        seed: Seed of demonstrations, generation, resampling, shuffling and training.
        samples: Split of the samples that scores are measured on.
        resamples: Resamples of the bootstrap.
        chunk: Networks generated, trained or scored at a time.

    Raises:
        UsageError: The generator reads no demonstrations, the tasks are not texts, or no k is left.
    """
    start = time.perf_counter()
    if not isinstance(suite, CausalSuite):
        raise UsageError(f"--k is for text tasks that a model answers, not {type(suite).__name__}")
    reads = _reads(generator)
    kept = sorted({k for k in ks if k > 0 or "text" in reads})
    if not kept or kept[0] < 0:
        raise UsageError(
            "--k 0 needs a generator that reads descriptions too; this one reads demonstrations "
            "alone: take 1 or more"
        )
    found = {}
    options = {"seed": seed, **(oracle_options or {})}
    for name, split in splits.items():
        asked = _ask(suite, split)
        made = FewShotSplit(
            name,
            [suite.names[t] for t in dict.fromkeys(t for t, _ in asked.pairs)],
            resamples=resamples,
            seed=seed,
        )
        run = _Run(generator, target, asked, made, reads, samples, seed, chunk, options)
        run.without(zoo, multitask, oracle_steps)
        for k in progress(kept, desc=name, unit="k"):
            run.score(k, lora_steps)
        found[name] = made
    settings = {
        "k": kept,
        "seed": seed,
        "samples": samples,
        "resamples": resamples,
        "lora_steps": lora_steps,
        "oracle_steps": oracle_steps,
        "oracle_options": dict(oracle_options or {}),
        "shot_tokens": SHOT_TOKENS,
        "generator": type(generator).__name__,
    }
    return FewShot(found, settings, time.perf_counter() - start)


def _reads(generator: Generator) -> set[str]:
    """What a generator reads: demonstrations, and perhaps descriptions.

    Raises:
        UsageError: It reads no demonstrations.
    """
    names = set(generator.encoder.input_names)
    if "demos" not in names:
        raise UsageError(
            f"--k needs a generator conditioned on demonstrations; this one reads "
            f"{' and '.join(sorted(names))}"
        )
    return names & {"text", "demos"}


def _ask(suite: CausalSuite, split: Split) -> _Asked:
    numbers = [int(t) for t in split.tasks if suite.descriptions[split.wordings][int(t)]]
    texts, unit = describe(suite, numbers, split.wordings, split.limit)
    if not texts:
        raise UsageError(f"no task of the split has a description in {split.wordings!r}")
    words = shown(suite, numbers, texts, unit).tolist()
    pairs = [(numbers[u], w) for u, w in zip(unit.tolist(), words, strict=True)]
    return _Asked(suite, pairs, texts, unit, len(numbers))


@dataclass(eq=False)
class _Run:
    """One split: scores rows into `result`."""

    generator: Generator
    target: Target
    asked: _Asked
    result: FewShotSplit
    reads: set[str]
    samples: str
    seed: int
    chunk: int
    options: dict[str, Any]

    def _scorer(self, suite: TaskSuite) -> Scorer:
        return Scorer(suite, self.target, self.samples, self.chunk)

    @property
    def every(self) -> Tensor:
        """`[P]` rows, which are the tasks of a few-shot suite."""
        return torch.arange(len(self.asked.pairs))

    def without(self, zoo: Zoo | None, multitask: Weights | None, oracle_steps: int) -> None:
        """The rows that no demonstration changes."""
        asked, every, fixed = self.asked, self.every, self.result.fixed
        zero = torch.zeros_like(every)
        scorer = self._scorer(few_shot(asked.suite, asked.pairs, self.seed, 0))
        fixed["base"] = asked.scores(scorer.base(every, zero))
        if zoo is not None:
            fixed["mean"] = asked.scores(scorer.score(zoo.mean(), zero, every, zero))
        if multitask is not None:
            fixed["multitask"] = asked.scores(scorer.score(multitask, zero, every, zero))
        if oracle_steps < 1:
            return
        tasks = torch.tensor([task for task, _ in asked.pairs])
        options = {"steps": oracle_steps, "chunk": self.chunk, **self.options}
        known = oracles(self.target, asked.suite, tasks, None, **options)
        if known is not None:
            rows = known.rows(tasks)
            kept = (rows >= 0).nonzero()[:, 0]
            values = scorer.score(known.weights, rows[kept], every[kept], zero[kept])
            fixed["oracle"] = asked.scores(values, kept)

    def score(self, k: int, lora_steps: int) -> None:
        """The rows of k demonstrations."""
        asked, every = self.asked, self.every
        suite = few_shot(asked.suite, asked.pairs, self.seed, k)
        rows = self.result.rows.setdefault(k, {})
        has = torch.tensor([len(task.examples) > 0 for task in suite.tasks])
        self.result.given[k] = sum(len(task.examples) for task in suite.tasks) / len(every)
        # Without a description, those that have no demonstrations have no condition either.
        kept = every if "text" in self.reads else has.nonzero()[:, 0]
        if len(kept):
            self._generated(suite, kept, rows)
        if k and suite.prompt.description:
            variant = suite.in_context(k, SHOT_TOKENS)
            counts: list[int] = variant.counts_shown()  # type: ignore[attr-defined]
            self.result.shown[k] = sum(counts) / len(counts)
            values = self._scorer(variant).base(every, torch.zeros_like(every))
            rows["incontext"] = asked.scores(values)
        kept = has.nonzero()[:, 0]
        if k and lora_steps and len(kept):
            values = torch.empty(len(every))
            options = {"steps": lora_steps, "desc": f"LoRA on {k}", **self.options}
            order, sizes = suite.stack_sizes(kept, options.get("samples", 32), self.chunk)
            for part in order.split(sizes):
                weights = train_weights(self.target, self.target.spec, suite, part, **options)
                here = torch.arange(len(part))
                zero = torch.zeros_like(part)
                values[part] = self._scorer(suite).score(weights, here, part, zero)
            rows["lora"] = asked.scores(values[kept], kept)

    def _generated(self, suite: CausalSuite, kept: Tensor, rows: dict[str, Scores]) -> None:
        condition = self._condition(suite, kept)
        jobs = {"generated": self._scorer(suite)}
        if "plain" in (variants := suite.prompt_variants(0)):
            jobs["generated_plain"] = self._scorer(variants["plain"])
        # Another task's condition, whose answers are others.
        asked = self.asked
        numbers = list(dict.fromkeys(task for task, _ in asked.pairs))
        partner = derangement([asked.suite.key(task) for task in numbers], self.seed)
        first = {int(u): i for i, u in reversed(list(enumerate(asked.unit[kept].tolist())))}
        donor = torch.tensor([first.get(int(partner[u]), -1) for u in asked.unit[kept]])
        values = {name: torch.empty(len(kept)) for name in jobs}
        shuffled = torch.full((len(kept),), torch.nan)
        for part in torch.arange(len(kept)).split(self.chunk):
            weights = self.generator.generate(condition=condition[part], seed=self.seed)
            for name, scorer in jobs.items():
                here, zero = torch.arange(len(part)), torch.zeros_like(part)
                values[name][part] = scorer.score(weights, here, kept[part], zero).float()
            # Tasks that are tried with weights that were generated here.
            tried = ((donor >= part[0]) & (donor <= part[-1])).nonzero()[:, 0]
            if len(tried):
                zero = torch.zeros_like(tried)
                found = jobs["generated"].score(weights, donor[tried] - part[0], kept[tried], zero)
                shuffled[tried] = found.float()
        for name, value in values.items():
            rows[name] = asked.scores(value, kept)
        there = (donor >= 0).nonzero()[:, 0]
        if len(there):
            rows["shuffled"] = asked.scores(shuffled[there], kept[there])

    def _condition(self, suite: CausalSuite, kept: Tensor) -> Condition:
        demos = [
            [(row.input, row.outputs[0]) for row in suite.tasks[i].examples] for i in kept.tolist()
        ]
        texts = [self.asked.texts[i] for i in kept.tolist()]
        if "text" not in self.reads:
            return self._encode(demos=demos)
        try:
            return self._encode(text=texts, demos=demos)
        except ConditionError:  # definitions may be longer than the encoder takes
            return self._encode(text=readable(self.generator, texts), demos=demos)

    @torch.no_grad()
    def _encode(self, **inputs: Any) -> Condition:
        return self.generator.encode(**inputs)
