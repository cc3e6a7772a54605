"""The templates of the quickstart: frames for whole sentences, styles for lists of digits."""

from __future__ import annotations

import itertools
from typing import TypeVar

# {vp}: "is even"; {question}: "is the digit even"; {plural}: "are even";
# {no_vp}, {no_plural}: the same for a phrase that describes the digits to be refused.
FRAMES: dict[str, tuple[str, ...]] = {
    "statement": (
        "Say yes if the digit {vp}.",
        "Answer yes when the number {vp}.",
        "Reply yes exactly when the digit in the image {vp}.",
        "Output true if the figure shown {vp}, and false otherwise.",
        "Yes if it {vp}, no otherwise.",
        "The digit {vp}.",
        "Decide whether the handwritten digit {vp}.",
        "Please check whether this number {vp}.",
        "Return a positive label whenever the digit {vp}.",
        "I want to know if this digit {vp}.",
        "You should respond yes in case the numeral {vp}.",
        "Tell me if the number in the picture {vp}.",
        "Fire only if the digit {vp}.",
        "Raise the flag when the number {vp}.",
        "Positive class: the digit {vp}.",
        "Thumbs up if that number {vp}.",
        "The correct answer is yes provided that the digit {vp}.",
        "Let it through if it {vp}.",
        "Say no unless the digit {vp}.",
        "Respond with no except when the number {vp}.",
        "True or false: the digit {vp}.",
        "The classifier shall accept the input if and only if the digit {vp}.",
        "Green light if the number {vp}, red light if not.",
        "Just nod when it {vp}.",
        "Assign label one to images whose digit {vp} and label zero to the rest.",
        "Confirm that the digit drawn here {vp}.",
        "The answer should be positive so long as the number {vp}.",
        "Verify that this figure {vp}.",
        "Nope, unless it {vp}.",
        "Anything goes as long as the digit {vp}.",
    ),
    "question": (
        "{question:the digit}?",
        "{question:this number}?",
        "{question:it}?",
        "Hey, {question:that one}?",
        "Quick check: {question:the number shown}?",
        "Look at the image: {question:the digit}?",
        "Yes or no: {question:the handwritten digit}?",
        "Kindly state your answer: {question:the numeral}?",
        "So, {question:the scribbled number}?",
        "Could you tell me: {question:this digit}?",
        "Here is a picture. {question:the number in it}?",
        "What do you think, {question:this one}?",
    ),
    "plural": (
        "Accept digits that {plural}.",
        "Pick out the numbers that {plural}.",
        "Only numbers that {plural} count as yes.",
        "Mark all digits which {plural} as positive.",
        "I'm looking for digits that {plural}.",
        "Keep pictures of numbers that {plural}, drop the rest.",
        "Yes for digits that {plural}.",
        "Select those numerals which {plural}.",
        "Let through all digits that {plural} and stop the others.",
        "Positive examples are digits that {plural}.",
        "Give me numbers that {plural}.",
        "The class to detect consists of digits that {plural}.",
        "Say yes to numbers that {plural}.",
        "Digits that {plural}, please.",
    ),
    "refusal": (
        "Say no if the digit {no_vp} and yes otherwise.",
        "Reject numbers that {no_plural}; accept everything else.",
        "No when it {no_vp}, else yes.",
        "Answer no only for digits that {no_plural}.",
        "Skip the ones that {no_plural}, say yes to all others.",
        "Refuse if the number {no_vp}, otherwise agree.",
        "Digits that {no_plural} are wrong, the rest are right.",
        "Say yes unless the digit {no_vp}.",
        "Yes, except when it {no_vp}.",
        "Throw out numbers that {no_plural} and keep the remaining ones.",
        "Accept every digit save those that {no_plural}.",
        "The answer is negative exactly when the figure {no_vp}.",
        "Ignore digits that {no_plural}, flag all the rest.",
        "Output false if the numeral {no_vp}, else true.",
    ),
}


T = TypeVar("T")


def _spread(grid: list[T], count: int) -> list[T]:
    """Picks `count` combinations, spread evenly over all of them."""
    stride = len(grid) / count
    return [grid[int((i + (i * 0.618) % 1) * stride) % len(grid)] for i in range(count)]


def _two_sided_frames(per_kind: int = 240) -> dict[str, tuple[str, ...]]:
    """Frames that name both answers, in matching pairs of opposite polarity.

    "Say yes if the digit ..., no otherwise" and "Say no if the digit ..., yes otherwise" differ in
    two words and mean opposite things, which only practice with many such frames teaches.

    Args:
        per_kind: how many frames of each polarity, spread evenly over all combinations.
    """
    verbs = ("Say", "Answer", "Reply", "Respond with", "Output", "Return", "Choose")
    answers = (("yes", "no"), ("true", "false"), ("positive", "negative"), ("accept", "reject"))
    links = ("if", "when", "whenever", "in case", "exactly when", "as soon as", "provided that")
    subjects = ("the digit", "the number", "it", "this figure", "the digit shown")
    ends = (
        ", otherwise {}", ", else {}", " and {} otherwise", "; {} in all other cases", "",
        ", and {} for the rest", ", {} if not",
    )  # fmt: skip
    orders = ("{verb} {a} {link} {subject} {{phrase}}{end}.",
              "{Link} {subject} {{phrase}}, {low} {a}{end}.")  # fmt: skip
    grid = list(itertools.product(orders, verbs, answers, links, subjects, ends))
    kinds: dict[str, list[str]] = {"statement": [], "refusal": []}
    for order, verb, pair, link, subject, end in _spread(grid, per_kind):
        for kind, (a, b), slot in (
            ("statement", pair, "{vp}"), ("refusal", (pair[1], pair[0]), "{no_vp}")
        ):  # fmt: skip
            text = order.format(
                verb=verb, low=verb.lower(), a=a, link=link, Link=link[0].upper() + link[1:],
                subject=subject, end=end.format(b),
            )  # fmt: skip
            kinds[kind].append(text.replace("{phrase}", slot))
    return {kind: tuple(dict.fromkeys(frames)) for kind, frames in kinds.items()}


def _sorting_frames(per_kind: int = 60) -> dict[str, tuple[str, ...]]:
    """Frames that sort digits: "Keep digits that ..., drop the rest" and the other way round.

    Args:
        per_kind: how many frames of each polarity, spread evenly over all combinations.
    """
    keep = ("Keep", "Retain", "Accept", "Let in", "Collect", "Take", "Approve", "Hold on to")
    drop = ("drop", "discard", "throw out", "remove", "reject", "leave out", "get rid of", "skip")
    nouns = ("digits", "numbers", "pictures of numbers", "the figures", "images of digits")
    ends = ("the rest", "all others", "everything else", "the remaining ones")
    grid = [
        (
            f"{k} {noun} that {{plural}}, {d} {end}.",
            f"{d[0].upper() + d[1:]} {noun} that {{no_plural}}, {k.lower()} {end}.",
        )
        for k, d, noun, end in itertools.product(keep, drop, nouns, ends)
    ]
    verdicts = (
        ("right", "wrong"), ("fine", "bad"), ("welcome", "unwanted"), ("good", "not good"),
        ("accepted", "refused"), ("positive", "negative"), ("in", "out"),
    )  # fmt: skip
    judged = [
        (
            f"{noun} that {{plural}} are {good}, {end} are {bad}.",
            f"{noun} that {{no_plural}} are {bad}, {end} are {good}.",
        )
        for noun, (good, bad), end in itertools.product(
            ("Digits", "Numbers", "Figures"), verdicts, ("the rest", "all others", "the others")
        )
    ]
    pairs = _spread(grid, per_kind // 2) + _spread(judged, per_kind - per_kind // 2)
    return {"plural": tuple(a for a, _ in pairs), "refusal": tuple(b for _, b in pairs)}


for _family in (_two_sided_frames(), _sorting_frames()):
    for _kind, _frames in _family.items():
        FRAMES[_kind] = tuple(dict.fromkeys((*FRAMES[_kind], *_frames)))

# Phrase styles for a set of digits. {or}: "3, 5 or 7"; {and}: "3, 5 and 7"; {comma}: "3, 5, 7";
# {a_or}: "a three, a five or a seven"; {first}, {last}: ends of a contiguous run.
LIST_STYLES: dict[str, tuple[str, ...]] = {
    "positive": (
        "is {or}",
        "is one of {comma}",
        "is any of {or}",
        "is {a_or}",
        "belongs to the set {comma}",
        "is among {and}",
        "equals {or}",
        "appears in the list {comma}",
        "shows {or}",
        "matches one of the values {and}",
        "is in the collection {comma}",
        "is either {or}",
        "can be {or}",
        "coincides with {or}",
    ),
    "negative": (
        "is anything but {and}",
        "is not {or}",
        "is none of {comma}",
        "is any digit except {and}",
        "differs from {and}",
        "is something other than {or}",
        "is missing from the list {comma}",
        "is not {a_or}",
        "is outside the set {comma}",
        "is neither of {comma}",
        "does not equal {or}",
        "does not belong to {comma}",
        "avoids {and}",
        "cannot be {or}",
    ),
    "range": (
        "is between {first} and {last} inclusive",
        "lies in the range {first} to {last}",
        "is anywhere from {first} to {last}",
        "is at least {first} and at most {last}",
        "is no smaller than {first} and no larger than {last}",
        "falls within {first} through {last}",
    ),
}
