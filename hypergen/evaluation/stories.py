"""What a generator makes of stories: questions answered without the story, and harm to the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import LanguageModel
from hypergen._utils.memory import memory_advice
from hypergen._utils.progress import progress
from hypergen.evaluation.passages import PASSAGES
from hypergen.evaluation.stories_result import METHODS, Counted, StoryEvaluation
from hypergen.generators import Generator
from hypergen.specs import Weights
from hypergen.targets import Target
from hypergen.zoo.language.branches import Branch, Tree
from hypergen.zoo.language.likelihood import Reader, takes_masks
from hypergen.zoo.language.stories import Story
from hypergen.zoo.language.story_trees import StoryTrees, right_options

_PASSAGE = 128  # most tokens of a passage
Sums = dict[str, list[tuple[float, float]]]  # method → total and count of each story


def evaluate_stories(
    generator: Generator,
    target: Target,
    language_model: LanguageModel,
    stories: Sequence[Story],
    *,
    plain: Sequence[str] = PASSAGES,
    together: int = 8,
    resamples: int = 2000,
    seed: int = 0,
) -> StoryEvaluation:
    """Answers questions and continues stories in four ways.

    - `none`: the frozen model without the story;
    - `in_prompt`: with the story in its prompt, read once for all questions and options;
    - `adapter`: with the weights generated from the story, which is not shown;
    - `shuffled`: with the weights generated from another story.

    A question is answered by the option of the highest log-likelihood behind the question, per
    token and as a sum. Perplexities: of the second half of each story, the weights being generated
    from its first half; and of plain text that no story is about (here, `shuffled` is left out).
    Weights are generated once for each story and each half.

    Args:
        generator: Conditions on documents.
        target: The frozen target, on a network that takes `answer_positions`.
        language_model: The same model, with its tokenizer.
        stories: At least one.
        plain: Texts that have nothing to do with them; each story's weights are tried on one.
        together: Stories of a forward pass.
        resamples: Resamples of the bootstrap over stories.
        seed: Seed of generation and resampling.

    Raises:
        UsageError: No story or no plain text, or a story that the model does not take whole.
        RunError: Memory ran out.
    """
    start = time.perf_counter()
    if not stories or not plain or together < 1:
        raise UsageError("give at least one story, one plain text, and together >= 1")
    run = _Run(generator, target, language_model, plain, seed)
    right: dict[str, Sums] = {"mean": {}, "sum": {}}
    continued: Sums = {}
    unrelated: Sums = {}
    bar = progress(total=len(stories), desc="stories", unit="story")
    with memory_advice("evaluation", "give fewer stories at a time (together)"):
        for at in _parts(len(stories), together):
            own = [stories[i] for i in at]
            weights = run.generate([story.text for story in own])
            run.questions(own, weights, right)
            run.unrelated(own, at, weights, unrelated)
            run.continuations(own, continued)
            bar.update(len(own))
    bar.close()
    settings = {
        "resamples": resamples,
        "seed": seed,
        "generator": type(generator).__name__,
        "generator_config": generator.config,
        "encoder": type(generator.encoder).__name__,
        "spec": repr(generator.spec),
        "model": language_model.name,
        "plain_texts": len(plain),
    }
    counted = {
        name: {m: Counted.of(values) for m, values in sums.items()}
        for name, sums in (("mean", right["mean"]), ("sum", right["sum"]))
    }
    return StoryEvaluation(
        accuracy=counted,
        perplexity={
            "continuation": {m: Counted.of(v) for m, v in continued.items()},
            "plain": {m: Counted.of(v) for m, v in unrelated.items()},
        },
        names=[story.id for story in stories],
        resamples=resamples,
        seed=seed,
        settings=settings,
        seconds=time.perf_counter() - start,
    )


def _parts(count: int, together: int) -> Iterator[list[int]]:
    """Numbers in parts of at least two, so that every story has another one beside it."""
    parts = [part.tolist() for part in torch.arange(count).split(max(2, together))]
    if len(parts) > 1 and len(parts[-1]) == 1:
        last = parts.pop()
        parts[-1] += last
    yield from parts


class _Run:
    def __init__(
        self,
        generator: Generator,
        target: Target,
        language_model: LanguageModel,
        plain: Sequence[str],
        seed: int,
    ) -> None:
        self.generator, self.target, self.seed = generator, target, seed
        self.trees = StoryTrees(language_model.tokenizer)
        self.tokenizer = language_model.tokenizer
        self.network: Any = target.model
        packs = takes_masks(generator.spec)
        self.reader = Reader(self.network, self.trees.pad, language_model.max_length, packs)
        self.plain = [row[:_PASSAGE] for row in self.trees.tokens(list(plain)) if len(row) > 1]
        if not self.plain:
            raise UsageError("the plain texts have less than two tokens")
        start = self.trees.start
        self._plain_none = self.read(
            None, [[Branch([*start, *row], labels=len(row) - 1)] for row in self.plain]
        )

    def generate(self, documents: list[str]) -> Weights:
        given: dict[str, Any] = {"document": documents}
        return self.generator.generate(seed=self.seed, **given).to(self.reader.device)

    def read(self, weights: Weights | None, trees: Sequence[Tree]) -> tuple[Any, Any]:
        call = self.network if weights is None else self.target
        return self.reader.read(call, weights, trees)

    def by_method(
        self, alone: Sequence[Tree], told: Sequence[Tree], weights: Weights
    ) -> Iterator[tuple[str, Any, Any]]:
        """Method, and what it makes of each tree."""
        yield "none", *self.read(None, alone)
        yield "in_prompt", *self.read(None, told)
        yield "adapter", *self.read(weights, alone)
        if len(weights) > 1:
            others = torch.arange(len(weights)).roll(1)
            yield "shuffled", *self.read(weights[others.to(weights.device)], alone)

    def questions(self, own: list[Story], weights: Weights, right: dict[str, Sums]) -> None:
        alone = [self.trees.choices(story) for story in own]
        told = [self.trees.choices(story, told=True) for story in own]
        for method, sums, counts in self.by_method(alone, told, weights):
            for story, total, count in zip(own, sums, counts, strict=True):
                for name, scores in (("mean", total / count), ("sum", total)):
                    hits = float(right_options(story, scores).sum())
                    right[name].setdefault(method, []).append((hits, float(len(story.questions))))

    def continuations(self, own: list[Story], out: Sums) -> None:
        """The second half of each story, its first half being known or not."""
        rows = self.trees.tokens([story.text for story in own])
        for story, row in zip(own, rows, strict=True):
            if len(row) < 4:
                raise UsageError(f"story {story.id!r} has {len(row)} tokens: too few to halve")
        firsts = [row[: len(row) // 2] for row in rows]
        rests = [row[len(row) // 2 :] for row in rows]
        documents = [
            self.tokenizer.decode(first, clean_up_tokenization_spaces=False) for first in firsts
        ]
        start = self.trees.start
        alone, told = [], []
        for first, rest in zip(firsts, rests, strict=True):
            # One token of what comes before is shown in any case: the same ones are predicted.
            alone.append([Branch([first[-1], *rest], labels=len(rest))])
            told.append([Branch([*start, *first]), Branch(rest, 0, len(rest))])
        for method, sums, counts in self.by_method(alone, told, self.generate(documents)):
            _add(out, method, sums, counts)

    def unrelated(self, own: list[Story], at: list[int], weights: Weights, out: Sums) -> None:
        """Plain text with each story's weights, and behind the story."""
        numbers = [i % len(self.plain) for i in at]
        start, texts = self.trees.start, [self.plain[number] for number in numbers]
        alone = [[Branch([*start, *row], labels=len(row) - 1)] for row in texts]
        sums, counts = self._plain_none
        _add(out, "none", [sums[n] for n in numbers], [counts[n] for n in numbers])
        gap = self.trees.tokens(["\n\n"])[0]
        told = [
            [Branch([*start, *story, *gap]), Branch(row, 0, len(row) - 1)]
            for story, row in zip(self.trees.tokens([s.text for s in own]), texts, strict=True)
        ]
        _add(out, "in_prompt", *self.read(None, told))
        _add(out, "adapter", *self.read(weights, alone))


def _add(out: Sums, method: str, sums: Sequence[Tensor], counts: Sequence[Tensor]) -> None:
    """Log-likelihoods as losses."""
    assert method in METHODS
    pairs = zip(sums, counts, strict=True)
    out.setdefault(method, []).extend((-float(s.sum()), float(c.sum())) for s, c in pairs)
