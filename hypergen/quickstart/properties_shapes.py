"""Facts about how the ten digits look: printed shapes, seven-segment displays, Roman numerals.

Conventions: shapes are those of plain printed digits (4 closed, 1 a bare vertical stroke, 7 without
a bar); the seven-segment display draws 6 and 9 with their tails and 7 with three segments; zero has
no Roman numeral.
"""

from __future__ import annotations

from hypergen.quickstart.concept import Concept

# Segments a to g of a seven-segment display, digit by digit.
SEGMENTS: tuple[str, ...] = (
    "abcdef",
    "bc",
    "abdeg",
    "abcdg",
    "bcfg",
    "acdfg",
    "acdefg",
    "abc",
    "abcdefg",
    "abcdfg",
)
ROMAN: tuple[str, ...] = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")


def shape_concepts() -> list[Concept]:
    """What the printed digit looks like."""

    def shape(
        name: str, yes: str, says: tuple[str, ...], nots: tuple[str, ...] = (), kin: str = ""
    ) -> Concept:
        return Concept(name, "shape", yes, says, nots, kin)

    return [
        shape(
            "loop",
            "04689",
            (
                "has a closed loop",
                "contains a closed loop",
                "has at least one hole",
                "encloses an area",
                "keeps an area fenced in by its outline",
                "contains a ring or another closed outline",
            ),
            ("has no closed loop", "is drawn without enclosing anything", "has no holes"),
            kin="loop",
        ),
        shape(
            "one_loop",
            "0469",
            ("has exactly one closed loop", "has a single hole", "encloses exactly one area"),
            kin="loop",
        ),
        shape(
            "two_loops",
            "8",
            ("has two closed loops", "has two holes", "looks like two stacked rings"),
            kin="loop",
        ),
        shape(
            "lower_loop",
            "68",
            (
                "has a small loop in its lower half",
                "has a ring at the bottom",
                "has a hole below the middle",
            ),
            kin="loop",
        ),
        shape(
            "straight",
            "147",
            (
                "is drawn with straight strokes only",
                "has no curves",
                "is made of straight lines",
                "can be laid out with matchsticks without bending any",
            ),
            ("has a curve", "contains a curved stroke", "is partly round", "has a bend"),
        ),
        shape(
            "turns_into_digit",
            "01689",
            (
                "is still a digit when turned upside down",
                "can be read after half a turn",
                "reads as a digit when the page is rotated by 180 degrees",
            ),
            ("stops being a digit when turned upside down",),
            kin="turn",
        ),
        shape(
            "turns_into_itself",
            "018",
            (
                "looks the same upside down",
                "is unchanged by half a turn",
                "has rotational symmetry",
            ),
            ("looks different upside down",),
            kin="turn",
        ),
        shape(
            "turns_into_other",
            "69",
            (
                "becomes a different digit when turned upside down",
                "turns into another digit by half a turn",
                "is easily misread upside down",
            ),
            kin="turn",
        ),
        shape(
            "mirror_vertical",
            "0138",
            (
                "has a horizontal line of symmetry",
                "is unchanged by swapping top and bottom",
                "looks the same reflected in water",
            ),
        ),
        shape(
            "horizontal_stroke",
            "2457",
            ("has a flat horizontal stroke", "contains a level line", "has a horizontal bar"),
        ),
        shape(
            "flat_top",
            "57",
            (
                "has a flat top",
                "starts with a level stroke at the top",
                "has a straight horizontal line on top",
            ),
        ),
    ]


def display_concepts() -> list[Concept]:
    """Seven-segment displays and Roman numerals."""

    def lit(name: str, segment: str, where: str) -> Concept:
        yes = "".join(str(d) for d in range(10) if segment in SEGMENTS[d])
        return Concept(
            name,
            "display",
            yes,
            (
                f"lights the {where} bar of a seven-segment display",
                f"uses the {where} segment on a digital clock",
                f"has the {where} segment on when shown by a calculator",
            ),
            (f"leaves the {where} segment of a digital clock dark",),
        )

    def count(name: str, yes: str, number: str) -> Concept:
        return Concept(
            name,
            "display",
            yes,
            (
                f"lights {number} segments of a digital clock",
                f"uses {number} bars on a calculator",
                f"is shown by {number} segments of a seven-segment display",
            ),
        )

    def roman(name: str, yes: str, says: tuple[str, ...], nots: tuple[str, ...] = ()) -> Concept:
        return Concept(name, "roman", yes, says, nots)

    return [
        lit("segment_top", "a", "top"),
        lit("segment_middle", "g", "middle"),
        lit("segment_bottom", "d", "bottom"),
        lit("segment_upper_left", "f", "upper left"),
        lit("segment_upper_right", "b", "upper right"),
        lit("segment_lower_left", "e", "lower left"),
        count("five_segments", "235", "exactly five"),
        count("six_segments", "069", "exactly six"),
        count("many_segments", "0689", "more than five"),
        roman(
            "roman_v",
            "45678",
            (
                "has a V in its Roman numeral",
                "is written with V in Roman numerals",
                "uses the Roman letter for five",
            ),
        ),
        roman(
            "roman_only_i",
            "123",
            (
                "is written with I alone in Roman numerals",
                "is a row of strokes in Roman numerals",
                "uses only the letter I as a Roman numeral",
            ),
        ),
        roman(
            "roman_i",
            "12346789",
            (
                "has an I in its Roman numeral",
                "is written with I in Roman numerals",
                "uses the Roman letter for one",
            ),
            ("is written without the Roman letter I",),
        ),
        roman(
            "roman_one_symbol",
            "15",
            (
                "is a single letter in Roman numerals",
                "has a Roman numeral of one symbol",
                "takes one character to write the Roman way",
            ),
        ),
        roman(
            "roman_two_symbols",
            "2469",
            (
                "is two letters long in Roman numerals",
                "has a Roman numeral of two symbols",
                "takes two characters to write the Roman way",
            ),
        ),
        roman(
            "roman_three_symbols",
            "37",
            (
                "is three letters long in Roman numerals",
                "has a Roman numeral of three symbols",
                "takes three characters to write the Roman way",
            ),
        ),
        roman(
            "roman_subtractive",
            "49",
            (
                "is written by subtraction in Roman numerals",
                "has a smaller symbol before a larger one in its Roman numeral",
                "uses the subtractive form in Roman numerals",
            ),
        ),
        roman(
            "roman_ends_in_i",
            "123678",
            (
                "has a Roman numeral that ends in I",
                "ends with I when written the Roman way",
                "has I as the last letter of its Roman numeral",
            ),
        ),
    ]
