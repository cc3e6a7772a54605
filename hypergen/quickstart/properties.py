"""The properties of digits that the quickstart asks about, beginning with order and divisibility.

Conventions: digits are integers from 0 to 9; 0 is even, not positive and a multiple of everything;
0 is nobody's divisor. Kinds of numbers are in `properties_numbers`, names in `properties_words`,
looks in `properties_shapes`, the world in `properties_world`.
"""

from __future__ import annotations

from hypergen.quickstart.concept import Concept
from hypergen.quickstart.properties_numbers import number_concepts
from hypergen.quickstart.properties_shapes import display_concepts, shape_concepts
from hypergen.quickstart.properties_words import spelling_concepts
from hypergen.quickstart.properties_world import world_concepts
from hypergen.quickstart.wordings import WORDS


def _digits(start: int, stop: int) -> str:
    return "".join(str(d) for d in range(max(start, 0), min(stop, 9) + 1))


def order_concepts() -> list[Concept]:
    """Comparisons, ranges and neighbours."""
    concepts = []
    asides = {
        0: (("is positive",), ("is worth nothing",)),
        1: (("has a square greater than itself",), ("is its own square",)),
        2: ((), ()),
        3: (("has a square of two digits",), ("has a square of one digit",)),
        4: (
            ("has a double of two digits", "is closer to nine than to zero", "rounds up to ten"),
            ("has a double of one digit", "is closer to zero than to nine", "rounds down to zero"),
        ),
        5: (("has a double greater than eleven",), ("can be counted on one hand",)),
        6: (("gives a two-digit sum when three is added to it",), ()),
        7: (("gives a two-digit sum when two is added to it",), ("is a digit of octal notation",)),
        8: (("is the largest digit",), ()),
    }
    for k, (more, less) in asides.items():
        k0, k1, w0, w1 = str(k), str(k + 1), WORDS[k], WORDS[k + 1]
        concepts.append(
            Concept(
                f"above_{k}",
                "order",
                _digits(k + 1, 9),
                (
                    f"is greater than {w0}",
                    f"is larger than {k0}",
                    f"is more than {w0}",
                    f"is above {k0}",
                    f"exceeds {w0}",
                    f"is at least {k1}",
                    f"is no less than {w1}",
                    f"is {w1} or more",
                    f"is bigger than {k0}",
                    *more,
                ),
                (
                    f"is less than {w1}",
                    f"is smaller than {k1}",
                    f"is below {w1}",
                    f"is under {k1}",
                    f"is at most {w0}",
                    f"is {k0} or less",
                    f"is no more than {w0}",
                    f"is lower than {k1}",
                    *less,
                ),
            )
        )
    for a, b in ((1, 3), (2, 5), (3, 6), (4, 7), (5, 8), (6, 8), (2, 7), (1, 6), (3, 8), (4, 5)):
        wa, wb = WORDS[a], WORDS[b]
        concepts.append(
            Concept(
                f"between_{a}_{b}",
                "order",
                _digits(a, b),
                (
                    f"has a value between {wa} and {wb}, both included",
                    f"is strictly between {WORDS[a - 1]} and {WORDS[b + 1]}",
                    f"is neither below {wa} nor above {wb}",
                    f"stays within the limits {a} and {b}",
                    f"is greater than {a - 1} and less than {b + 1}",
                ),
                (
                    f"is less than {wa} or greater than {wb}",
                    f"falls outside the range {a} to {b}",
                    f"is either below {a} or above {b}",
                ),
            )
        )
    for k in range(1, 9):
        w = WORDS[k]
        concepts.append(
            Concept(
                f"next_to_{k}",
                "order",
                f"{k - 1}{k + 1}",
                (
                    f"differs from {w} by exactly one",
                    f"is a direct neighbour of {k}",
                    f"comes right before or right after {w}",
                    f"is one step away from {k}",
                    f"is {w} plus or minus one",
                    f"is adjacent to {k} when counting",
                ),
                (f"is neither one less nor one more than {w}",),
            )
        )
    near = {"1": "012", "5": "456", "8": "789"}
    for centre, yes in near.items():
        concepts.append(
            Concept(
                f"near_{centre}",
                "order",
                yes,
                (
                    f"differs from {WORDS[int(centre)]} by at most one",
                    f"is within one of {centre}",
                    f"is {centre} or one of its direct neighbours",
                ),
                (f"differs from {centre} by more than one", f"is at least two away from {centre}"),
            )
        )
    concepts += [
        Concept(
            "far_from_5",
            "order",
            "01289",
            (
                "differs from five by more than two",
                "is at least three away from 5",
                "is far from five",
            ),
            ("is within two of five", "is at most two away from 5", "is close to five"),
        ),
        Concept(
            "outermost",
            "order",
            "09",
            (
                "is the smallest or the largest digit",
                "is at one end of the digits",
                "is the lowest or the highest single figure",
                "is an extreme of the scale",
            ),
            ("has both a smaller and a larger digit",),
        ),
    ]
    return concepts


def divisibility_concepts() -> list[Concept]:
    """Parity, multiples, remainders and divisors."""
    concepts = [
        Concept(
            "even",
            "arithmetic",
            "02468",
            (
                "is even",
                "is an even number",
                "is divisible by two",
                "is a multiple of 2",
                "can be halved without a remainder",
                "splits into two equal whole parts",
                "is twice a whole number",
            ),
            (
                "is odd",
                "is an odd number",
                "leaves remainder one when divided by two",
                "leaves something over when paired up",
                "is one more than an even number",
            ),
        ),
    ]
    for m in (3, 4, 5, 6, 7):
        w = WORDS[m]
        concepts.append(
            Concept(
                f"multiple_of_{m}",
                "arithmetic",
                "".join(str(d) for d in range(0, 10, m)),
                (
                    f"is a multiple of {w}",
                    f"is divisible by {m}",
                    f"is in the {w} times table",
                    f"leaves no remainder when divided by {w}",
                    f"is {w} times a whole number",
                    f"can be shared equally among {m} people",
                ),
                (f"leaves a remainder when divided by {m}",),
            )
        )
    for m in (3, 4, 5):
        for r in range(1, m):
            concepts.append(
                Concept(
                    f"remainder_{r}_mod_{m}",
                    "arithmetic",
                    "".join(str(d) for d in range(r, 10, m)),
                    (
                        f"leaves remainder {WORDS[r]} when divided by {WORDS[m]}",
                        f"is {r} more than a multiple of {m}",
                        f"is congruent to {r} modulo {m}",
                        f"is {WORDS[r]} above a multiple of {WORDS[m]}",
                        f"has {r} left over after taking away as many {WORDS[m]}s as possible",
                    ),
                )
            )
    for n in (6, 8, 9, 10, 12, 14, 15, 18, 20, 21, 24, 30, 36, 42):
        yes = "".join(str(d) for d in range(1, 10) if n % d == 0)
        concepts.append(
            Concept(
                f"divides_{n}",
                "arithmetic",
                yes,
                (
                    f"divides {n} evenly",
                    f"is a divisor of {n}",
                    f"is a factor of {n}",
                    f"goes into {n} without a remainder",
                    f"has {n} among its multiples",
                    f"is a number of equal groups that {n} people can form",
                ),
            )
        )
    return concepts


def all_concepts() -> tuple[Concept, ...]:
    """Returns every concept of the quickstart, in a fixed order."""
    return (
        *order_concepts(),
        *divisibility_concepts(),
        *number_concepts(),
        *shape_concepts(),
        *spelling_concepts(),
        *display_concepts(),
        *world_concepts(),
    )
