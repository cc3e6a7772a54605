"""Sentences for one task, and tasks composed of other tasks' phrases."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from hypergen.quickstart.concept import Concept
from hypergen.quickstart.templates import FRAMES
from hypergen.quickstart.wordings import Phrase, fill, negate

Answers = tuple[bool, ...]

_KIND_WEIGHTS = {"statement": 0.4, "question": 0.2, "plural": 0.2, "refusal": 0.2}


def complement(answers: Answers) -> Answers:
    """Returns the opposite answers."""
    return tuple(not a for a in answers)


def function_key(answers: Answers) -> Answers:
    """Returns one representative for a function and its complement."""
    return min(answers, complement(answers))


class SentenceWriter:
    """Writes the sentences of a task from its phrases and those of its complement.

    Attributes:
        counts: how many sentences of each wording split to write.
        frames: frames by wording split and kind.
    """

    def __init__(self, templates: Mapping[str, str], counts: Mapping[str, int]) -> None:
        self.counts = counts
        self.frames = {
            split: {kind: [f for f in FRAMES[kind] if templates[f] == split] for kind in FRAMES}
            for split in ("train", "val", "heldout")
        }

    def _sentence(
        self, frames: str, yes: list[Phrase], no: list[Phrase], rng: random.Random
    ) -> str | None:
        kinds = [k for k in _KIND_WEIGHTS if self.frames[frames][k]]
        kind = rng.choices(kinds, [_KIND_WEIGHTS[k] for k in kinds])[0]
        phrases = no if kind == "refusal" else yes
        if not phrases:
            return None
        phrase = rng.choice(phrases)
        if kind != "statement" and not phrase.simple:
            kind = "statement"
            phrase = rng.choice(yes)
        return fill(rng.choice(self.frames[frames][kind]), phrase.text)

    def write(
        self, yes: list[Phrase], no: list[Phrase], rng: random.Random
    ) -> dict[str, tuple[str, ...]]:
        """Returns distinct sentences by wording split."""

        def of(phrases: list[Phrase], split: str) -> list[Phrase]:
            return [p for p in phrases if p.split == split]

        result: dict[str, tuple[str, ...]] = {}
        seen: set[str] = set()
        for wording, count in self.counts.items():
            sentences: list[str] = []
            for _ in range(20 * count):
                if len(sentences) == count:
                    break
                if wording == "paraphrase":
                    frames, phrases = "train", "paraphrase"
                elif wording == "train":
                    frames, phrases = "train", "train"
                else:  # a reserved frame, or a seen frame with a reserved style
                    new_style = bool(of(yes, wording) and of(no, wording)) and rng.random() < 0.4
                    frames, phrases = ("train", wording) if new_style else (wording, "train")
                text = self._sentence(frames, of(yes, phrases), of(no, phrases), rng)
                if text is not None and text not in seen:
                    seen.add(text)
                    sentences.append(text)
            result[wording] = tuple(sentences)
        return result


def property_phrases(concept: Concept, positive: bool, seed: int) -> list[Phrase]:
    """Returns a concept's phrases; one of four or more is reserved as a paraphrase."""
    reserved: set[str] = set()
    if len(concept.says) >= 4:
        chosen = random.Random(f"paraphrase:{concept.name}:{seed}").choice(concept.says)
        reserved = {chosen, negate(chosen)}
    return [
        Phrase(text, "paraphrase" if text in reserved else "train")
        for text in concept.phrases(positive)
    ]


def compose(
    concepts: Sequence[Concept], forbidden: set[Answers], seed: int, rng: random.Random
) -> tuple[str, Answers, list[Phrase]] | None:
    """Combines a training property with another one or with a digit.

    Args:
        concepts: the properties to draw from.
        forbidden: function keys that the result must not have.
        seed: the seed of the task table, which decides the reserved phrases.
        rng: draws the parts.

    Returns:
        Name, answers and phrases of the new task, or None where the draw gives a trivial, an
        unchanged or a forbidden function.
    """
    sides = []
    for concept in rng.sample(list(concepts), 2):
        positive = rng.random() < 0.6
        phrases = [p for p in property_phrases(concept, positive, seed) if p.split == "train"]
        answers = concept.answers if positive else complement(concept.answers)
        sides.append((concept.name if positive else f"not-{concept.name}", answers, phrases))
    (name, a, ps), (other, b, qs) = sides
    digit = rng.randrange(10)
    single = tuple(d == digit for d in range(10))
    form = rng.choice(("and", "or", "but", "plus"))
    if not ps or not qs:
        return None
    if form == "and":
        answers = tuple(x and y for x, y in zip(a, b, strict=True))
        texts = [f"{p.text} and {q.text}" for p in ps for q in qs]
    elif form == "or":
        answers = tuple(x or y for x, y in zip(a, b, strict=True))
        texts = [f"{p.text} or {q.text}" for p in ps for q in qs]
    elif form == "but":
        answers = tuple(x and not y for x, y in zip(a, single, strict=True))
        texts = [f"{p.text} but is not {digit}" for p in ps]
    else:
        answers = tuple(x or y for x, y in zip(a, single, strict=True))
        texts = [f"{p.text} or is {digit}" for p in ps]
    unchanged = answers in (a, b)
    if unchanged or not 0 < sum(answers) < 10 or function_key(answers) in forbidden:
        return None
    right = other if form in ("and", "or") else str(digit)
    return f"composed:{name}-{form}-{right}", answers, [Phrase(t, simple=False) for t in texts]
