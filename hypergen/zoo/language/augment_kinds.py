"""The ways to make another task of a task, see `augment`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from hypergen.zoo.language.tasks import TextTask

MAX_LABELS = 20  # more are not listed in a description

# What labels are renamed to, besides letters and numbers.
_COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink", "grey", "orange")
_NONSENSE = ("zup", "wib", "dax", "fep", "lom", "rix", "tob", "vun", "kes", "gah", "miv", "pob")
_POOLS = (
    tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    tuple(str(n) for n in range(1, MAX_LABELS + 1)),
    _COLOURS,
    _NONSENSE,
)


@dataclass(frozen=True)
class Change:
    """What a variant does to a task.

    Attributes:
        said: Wordings of what changed; `{task}` stands for the task's own description.
        answer: Old output → new one; None where the variant leaves it out.
        labels: The closed set of the variant; None: the task's labels, if any, by `answer`.
        merges: Whether different answers may become one.
    """

    said: tuple[str, ...]
    answer: Callable[[str], str | None]
    labels: tuple[str, ...] | None = None
    merges: bool = False


Kind = Callable[[TextTask, torch.Generator], Change | None]


def closed_set(task: TextTask) -> tuple[str, ...]:
    """The labels of a task, as given or inferred; none if open, too many, or listed by inputs."""
    labels = task.labels
    if not labels and not task.picks_from_list:
        labels = task.inferred_labels
    return labels if 2 <= len(labels) <= MAX_LABELS else ()


# -- the closed set ----------------------------------------------------------------------------


def subset(task: TextTask, random: torch.Generator) -> Change | None:
    """Some labels alone."""
    labels = closed_set(task)
    if len(labels) < 3:
        return None
    count = int(torch.randint(2, len(labels), (), generator=random))
    kept = shuffled(labels, random)[:count]
    names = ", ".join(kept)
    return Change(
        (
            f"{{task}}\nOnly these answers occur: {names}.",
            f"{{task}}\nHere the answer is always one of the following: {names}. Ignore others.",
            f"Of all answers named below, use these alone: {names}.\n{{task}}",
        ),
        lambda output: output if output in kept else None,
        kept,
    )


def listed(task: TextTask, random: torch.Generator) -> Change | None:
    """The same labels, listed in another order."""
    labels = shuffled(closed_set(task), random)
    if not labels:
        return None
    names = ", ".join(labels)
    return Change(
        (
            f"{{task}}\nPossible answers: {names}.",
            f"Choose one of: {names}.\n{{task}}",
            f"{{task}}\nAnswer with exactly one of these: {names}.",
        ),
        lambda output: output if output in labels else None,
        labels,
    )


def numbered(task: TextTask, random: torch.Generator) -> Change | None:
    """A label's number in a list."""
    labels = shuffled(closed_set(task), random)
    if not labels:
        return None
    number = {label: str(i) for i, label in enumerate(labels, 1)}
    names = " ".join(f"{i}. {label}" for label, i in number.items())
    return Change(
        (
            f"{{task}}\nAnswer with the number of the right item in this list: {names}",
            f"Give the number of the answer, not the answer. The numbers: {names}\n{{task}}",
            f"{{task}}\nThe answers are numbered: {names}\nWrite the number alone.",
        ),
        number.get,
        tuple(number.values()),
    )


def renamed(task: TextTask, random: torch.Generator) -> Change | None:
    """Letters, numbers or other words for labels."""
    labels = closed_set(task)
    own = {label.lower() for label in labels}
    fitting = [
        pool
        for pool in _POOLS
        if len(pool) >= len(labels) and own.isdisjoint(name.lower() for name in pool)
    ]
    if not labels or not fitting:
        return None
    pool = fitting[int(torch.randint(len(fitting), (), generator=random))]
    # Letters and numbers start with the first ones; words are drawn from all.
    names = shuffled(pool, random) if pool in (_COLOURS, _NONSENSE) else pool
    return _mapped(dict(zip(shuffled(labels, random), names, strict=False)))


def swapped(task: TextTask, random: torch.Generator) -> Change | None:
    """Labels in each other's place."""
    labels = shuffled(closed_set(task), random)
    if not 2 <= len(labels) <= 6:
        return None
    return _mapped(dict(zip(labels, (*labels[1:], labels[0]), strict=True)))


def _mapped(names: dict[str, str]) -> Change:
    quoted = ", ".join(f'"{new}" for "{old}"' for old, new in names.items())
    equal = "; ".join(f"{old} = {new}" for old, new in names.items())
    becomes = ", ".join(f'"{old}" becomes "{new}"' for old, new in names.items())
    return Change(
        (
            f"{{task}}\nBut write {quoted}.",
            f"{{task}}\nCode the answer as follows: {equal}. Output the code alone.",
            f"Answers are renamed: {becomes}. With these names, do this: {{task}}",
        ),
        names.get,
        tuple(names.values()),
    )


# -- the form of the output --------------------------------------------------------------------


def _form(function: Callable[[str], str], *said: str) -> Kind:
    def kind(task: TextTask, random: torch.Generator) -> Change:
        return Change(said, function)

    kind.__doc__ = said[0].partition("\n")[2]
    return kind


def _json(output: str) -> str:
    return json.dumps({"answer": output}, ensure_ascii=False)


# -- a further step ----------------------------------------------------------------------------


def _first_letter(output: str) -> str | None:
    return output[0] if output[0].isalnum() else None


def _last_letter(output: str) -> str | None:
    return output[-1] if output[-1].isalnum() else None


def _length(output: str) -> str | None:
    return str(len(output)) if output.isalpha() else None


def _step(function: Callable[[str], str | None], *said: str) -> Kind:
    def kind(task: TextTask, random: torch.Generator) -> Change | None:
        return Change(said, lambda output: function(output) if output else None, merges=True)

    kind.__doc__ = said[0].partition("\n")[2]
    return kind


KINDS: dict[str, Kind] = {
    "subset": subset,
    "listed": listed,
    "numbered": numbered,
    "renamed": renamed,
    "swapped": swapped,
    "upper": _form(
        str.upper,
        "{task}\nWrite the answer in capital letters.",
        "Answer in upper case only.\n{task}",
        "{task}\nThe whole output must be in CAPITALS.",
    ),
    "quotes": _form(
        lambda output: f'"{output}"',
        "{task}\nPut the answer in double quotes.",
        "Your output must start and end with a double quote.\n{task}",
        "{task}\nQuote the answer.",
    ),
    "prefix": _form(
        lambda output: f"Answer: {output}",
        '{task}\nStart the output with "Answer:".',
        'Write "Answer:" and then the answer.\n{task}',
        '{task}\nThe output has the form "Answer: ..." with the answer for the dots.',
    ),
    "json": _form(
        _json,
        '{task}\nWrite the answer as a JSON object with the key "answer".',
        'Output JSON: {"answer": ...} with the answer as a text for the dots.\n{task}',
        '{task}\nFormat: one JSON object on one line, whose only key is "answer".',
    ),
    "repeat": _step(
        lambda output: f"{output} {output}",
        "{task}\nWrite the answer twice, with a space in between.",
        "Say the answer two times.\n{task}",
        "{task}\nThen repeat the answer once more behind a space.",
    ),
    "reverse_words": _step(
        lambda output: " ".join(reversed(output.split())),
        "{task}\nThen write the words of that answer in reverse order.",
        "Find the answer to the following and output its words last to first.\n{task}",
        "{task}\nGive the answer's words backwards: the last word comes first.",
    ),
    "first_letter": _step(
        _first_letter,
        "{task}\nGive only the first character of that answer.",
        "Find the answer to the following and output its first character alone.\n{task}",
        "{task}\nAbbreviate the answer to its first character.",
    ),
    "last_letter": _step(
        _last_letter,
        "{task}\nGive only the last character of that answer.",
        "Find the answer to the following and output its last character alone.\n{task}",
        "{task}\nOutput nothing but the character that the answer ends with.",
    ),
    "length": _step(
        _length,
        "{task}\nOutput how many letters that answer has, as a number.",
        "Find the answer to the following and count its letters; output the count.\n{task}",
        "{task}\nInstead of the answer, give the number of its letters.",
    ),
}


def shuffled(items: Sequence[str], random: torch.Generator) -> tuple[str, ...]:
    """The items in a random order."""
    return tuple(items[i] for i in torch.randperm(len(items), generator=random).tolist())
