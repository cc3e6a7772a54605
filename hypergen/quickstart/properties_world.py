"""Facts about keypads, dice, the calendar, chemistry and things that come in fixed numbers.

Conventions: the keypad is a telephone's (1 2 3 on top, 0 below the 8); days are counted from Monday
and months from January, so 0 is neither; seasons are those of the northern half of the Earth.
"""

from __future__ import annotations

from hypergen.quickstart.concept import Concept
from hypergen.quickstart.wordings import WORDS


def world_concepts() -> list[Concept]:
    """Keypads, dice, the calendar, elements and things that come in fixed numbers."""

    def keypad(name: str, yes: str, says: tuple[str, ...], nots: tuple[str, ...] = ()) -> Concept:
        return Concept(name, "keypad", yes, says, nots)

    def world(name: str, yes: str, says: tuple[str, ...], nots: tuple[str, ...] = ()) -> Concept:
        return Concept(name, "world", yes, says, nots)

    concepts = [
        keypad(
            "key_top_row",
            "123",
            ("is in the top row of a phone keypad", "is on the first row of a phone's keys"),
        ),
        keypad(
            "key_middle_row",
            "456",
            (
                "is in the row of the five on a phone keypad",
                "is on the second row of a phone's keys",
            ),
        ),
        keypad(
            "key_third_row",
            "789",
            ("is in the third row of a phone keypad", "is on the row below 4, 5 and 6"),
        ),
        keypad(
            "key_left",
            "147",
            ("is in the left column of a phone keypad", "is on the left edge of a dial pad"),
        ),
        keypad(
            "key_centre",
            "0258",
            (
                "is in the middle column of a phone keypad",
                "is on the central column of keys",
                "lies above or below another key in the centre of a dial pad",
            ),
        ),
        keypad(
            "key_right",
            "369",
            (
                "is in the right column of a phone keypad",
                "is on the right edge of a dial pad",
                "is typed at the far right of a phone's keys",
            ),
        ),
        keypad(
            "key_corner",
            "1379",
            ("is at a corner of the 3 by 3 keypad", "is a corner key among one to nine"),
        ),
        keypad(
            "key_cross",
            "24568",
            (
                "is on the central cross of a phone keypad from one to nine",
                "shares a row or column with the five key, zero excluded",
                "is the five key or touches it along an edge, zero excluded",
            ),
        ),
        keypad(
            "key_four_letters",
            "79",
            (
                "has four letters on its phone key",
                "carries the most letters on a phone keypad",
                "is the phone key of pqrs or wxyz",
            ),
        ),
        world("die_face", "123456", ("is a face of an ordinary die", "can be rolled with one die")),
        world(
            "die_centre",
            "135",
            (
                "is a die face with a dot in the centre",
                "has a middle pip on a die",
                "is a die face with an odd number of dots",
            ),
        ),
        world(
            "month_31",
            "13578",
            (
                "is the number of a month with 31 days",
                "is a month of full 31 days",
                "is the number of a long month",
            ),
        ),
        world(
            "month_30",
            "469",
            ("is the number of a month with 30 days", "is a month of exactly thirty days"),
        ),
        world(
            "month_with_r",
            "12349",
            (
                "is the number of a month spelled with an r",
                "is a month with r in its name",
                "is a month in which oysters are said to be safe to eat",
            ),
        ),
        world(
            "month_summer",
            "678",
            ("is the number of a northern summer month", "is a month of the summer holidays"),
        ),
        world(
            "month_spring",
            "345",
            ("is the number of a northern spring month", "is a month of spring in Europe"),
        ),
        world("first_quarter", "123", ("is a month of the first quarter of the year",)),
        world(
            "weekday",
            "12345",
            ("is a working day when Monday is day one", "is a school day counted from Monday"),
        ),
        world(
            "weekend",
            "67",
            (
                "is a weekend day when Monday is day one",
                "is a Saturday or Sunday by number",
                "is a free day counted from Monday",
            ),
        ),
        world(
            "gas",
            "12789",
            (
                "is the atomic number of a gas",
                "is the number of a gaseous chemical element",
                "is the place of a gas in the periodic table",
            ),
        ),
        world(
            "metal",
            "34",
            (
                "is the atomic number of a metal",
                "is the number of a metallic element",
                "is the place of a metal in the periodic table",
            ),
        ),
    ]
    counts = {
        0: ("is the number of corners of a circle", "is the freezing point of water in Celsius"),
        1: ("is the number of moons of the Earth", "is the number of horns on a unicorn"),
        2: ("is the number of wheels on a bicycle", "is the size of a pair"),
        3: ("is the number of sides of a triangle", "is the number of wheels on a tricycle"),
        4: ("is the number of seasons", "is the number of legs of a dog"),
        5: ("is the number of Olympic rings", "is the number of fingers on a hand"),
        6: ("is the number of legs of an insect", "is the number of strings on a guitar"),
        7: ("is the number of days in a week", "is the number of colours in a rainbow"),
        8: ("is the number of legs of a spider", "is the number of arms of an octopus"),
        9: ("is the number of lives of a cat", "is the number of baseball players on a field"),
    }
    for d, says in counts.items():
        extra: tuple[str, ...] = (f"comes right after {WORDS[d - 1]}",) if d else ()
        extra += (f"comes right before {WORDS[d + 1]}",) if d < 9 else ()
        concepts.append(world(f"count_{d}", str(d), (*says, *extra)))
    return concepts
