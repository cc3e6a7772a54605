"""How a yes/no question about a digit is put into words.

A description is a *phrase* (a verb phrase in the third person: "is 3 or 7", "has a closed loop")
inside a *frame* ("Say yes if the digit ..."). Frames, and the phrase styles of label lists, are
whole templates: each belongs to exactly one of training, validation and held-out wordings, so a
held-out wording never differs from a training one by its digits alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypergen.quickstart.templates import FRAMES, LIST_STYLES

WORDS: tuple[str, ...] = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
)  # fmt: skip

WORDING_SPLITS: tuple[str, ...] = ("train", "val", "heldout")

_BASE_FORMS = {"has": "have", "does": "do", "goes": "go", "is": "be", "matches": "match"}


def base_form(verb: str) -> str:
    """Returns the infinitive of a verb in the third person singular ("has" -> "have")."""
    if verb in _BASE_FORMS:
        return _BASE_FORMS[verb]
    return verb[:-1] if verb.endswith("s") else verb


def negate(phrase: str) -> str:
    """Returns the negation of a verb phrase ("has a loop" -> "does not have a loop")."""
    verb, _, rest = phrase.partition(" ")
    if verb == "is":
        return f"is {rest[4:]}" if rest.startswith("not ") else f"is not {rest}"
    if verb == "can":
        return f"cannot {rest}"
    return f"does not {base_form(verb)} {rest}".rstrip()


def pluralise(phrase: str) -> str:
    """Returns the plural of a verb phrase ("is even" -> "are even")."""
    verb, _, rest = phrase.partition(" ")
    plural = {"is": "are", "does": "do"}.get(verb) or base_form(verb)
    return f"{plural} {rest}".rstrip()


def ask(phrase: str, subject: str) -> str:
    """Returns the question a verb phrase answers ("is even" -> "is the digit even")."""
    verb, _, rest = phrase.partition(" ")
    if verb in ("is", "can", "cannot"):
        return f"{verb} {subject} {rest}"
    if verb == "does":
        return f"does {subject} {rest}"
    return f"does {subject} {base_form(verb)} {rest}".rstrip()


def fill(frame: str, phrase: str) -> str:
    """Puts a verb phrase into a frame.

    Args:
        frame: one of the templates of `FRAMES`.
        phrase: a verb phrase; for a frame of kind "refusal" it must describe the digits to refuse.

    Returns:
        The sentence, with a capital first letter where the frame starts with the phrase.
    """
    text = frame
    if "{question:" in text:
        start = text.index("{question:")
        end = text.index("}", start)
        subject = text[start + len("{question:") : end]
        text = text[:start] + ask(phrase, subject) + text[end + 1 :]
    for name, value in (("vp", phrase), ("plural", pluralise(phrase))):
        text = text.replace("{no_" + name + "}", value).replace("{" + name + "}", value)
    return text[0].upper() + text[1:]


def split_templates(seed: int) -> dict[str, str]:
    """Assigns every frame and list style to one wording split.

    About a fifth of each kind is held out and an eighth kept for validation (at least one each),
    drawn at random by the seed.

    Args:
        seed: the seed of the draw.

    Returns:
        A map from template to "train", "val" or "heldout".
    """
    assigned: dict[str, str] = {}
    for source in (FRAMES, LIST_STYLES):
        for kind, templates in source.items():
            order = list(templates)
            random.Random(f"templates:{kind}:{seed}").shuffle(order)
            n_heldout = max(1, round(len(order) / 5))
            n_val = max(1, round(len(order) / 8))
            for i, template in enumerate(order):
                assigned[template] = (
                    "heldout" if i < n_heldout else "val" if i < n_heldout + n_val else "train"
                )
    return assigned


def join(items: Sequence[str], conjunction: str) -> str:
    """Joins words as in running text: "a, b or c"; with an empty conjunction: "a, b, c"."""
    if len(items) == 1 or not conjunction:
        return ", ".join(items)
    return f"{', '.join(items[:-1])} {conjunction} {items[-1]}"


def is_run(digits: Sequence[int]) -> bool:
    """Says whether at least three digits form one contiguous run."""
    return len(digits) >= 3 and max(digits) - min(digits) == len(digits) - 1


def list_phrase(style: str, digits: Sequence[int], rng: random.Random) -> str:
    """Writes a set of digits in one style of `LIST_STYLES`.

    Args:
        style: the template.
        digits: the digits to name (for a negative style those that are excluded).
        rng: draws the order and whether digits are numerals or words.

    Returns:
        A verb phrase, such as "is 3, 5 or 7".
    """
    order = sorted(digits)
    if rng.random() < 0.6:
        rng.shuffle(order)
    spell: Callable[[int], str] = (lambda d: WORDS[d]) if rng.random() < 0.5 else str
    items = [spell(d) for d in order]
    articles = [("an " if d == 8 else "a ") + spell(d) for d in order]
    values = {
        "or": join(items, "or"),
        "and": join(items, "and"),
        "comma": join(items, ""),
        "a_or": join(articles, "or"),
        "first": spell(min(digits)),
        "last": spell(max(digits)),
    }
    return style.format(**values)


@dataclass(frozen=True)
class Phrase:
    """A verb phrase and the wording split that it belongs to.

    Attributes:
        text: the verb phrase.
        split: "train" where it may be used anywhere, else the only split that may use it.
        simple: whether it may be turned into a question or a plural (a conjunction may not).
    """

    text: str
    split: str = "train"
    simple: bool = True


def list_phrases(
    answers: Sequence[bool], templates: dict[str, str], rng: random.Random
) -> list[Phrase]:
    """Names the digits with a positive answer in every style that suits them.

    Negative styles name the excluded digits and are used when those are few; range styles when the
    digits form a contiguous run.

    Args:
        answers: ten answers, one a digit.
        templates: the assignment made by `split_templates`.
        rng: draws order and spelling.

    Returns:
        One phrase a style.
    """
    yes = [d for d in range(10) if answers[d]]
    no = [d for d in range(10) if not answers[d]]
    phrases = []
    if len(yes) <= 7:
        phrases += [(s, yes) for s in LIST_STYLES["positive"]]
    if len(no) <= 5:
        phrases += [(s, no) for s in LIST_STYLES["negative"]]
    if is_run(yes):
        phrases += [(s, yes) for s in LIST_STYLES["range"]]
    return [Phrase(list_phrase(s, digits, rng), templates[s]) for s, digits in phrases]
