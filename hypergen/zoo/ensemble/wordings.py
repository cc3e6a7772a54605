"""English descriptions of tasks over classes."""

from __future__ import annotations

from collections.abc import Sequence


def describe_classes(classes: Sequence[str], noun: str) -> tuple[str, ...]:
    """Descriptions of the task of telling all classes apart."""
    names = _join(classes, "or")
    return (
        f"Which {noun} is in the image: {names}?",
        f"Classify the {noun} in the image as {names}.",
        f"Tell the {len(classes)} kinds of {noun} apart: {_join(classes, 'and')}.",
    )


def describe_subset(subset: Sequence[str], others: Sequence[str], noun: str) -> tuple[str, ...]:
    """Descriptions of the yes/no task of recognising some of the classes.

    Args:
        subset: Names of the classes whose answer is yes.
        others: Names of the classes whose answer is no.
        noun: What an image shows.
    """
    either, every = _join(subset, "or"), _join(subset, "and")
    return (
        f"Is the {noun} in the image {either}?",
        f"Say yes if the image shows {either}, and no otherwise.",
        f"Detect {every}.",
        f"Does the picture show one of these: {', '.join(subset)}?",
        f"Separate {every} from {_join(others, 'and')}.",
        f"The answer is no for {_join(others, 'or')}, and yes for every other {noun}.",
    )


def _join(words: Sequence[str], conjunction: str) -> str:
    """a, b and c."""
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"
