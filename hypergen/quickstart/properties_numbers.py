"""Facts about the ten digits: kinds of numbers and binary notation.

Conventions: 0 is a perfect square, a perfect cube, a Fibonacci and a triangular number; 1 is
neither prime nor composite; every power includes 1 (the zeroth) and never 0.
"""

from __future__ import annotations

from hypergen.quickstart.concept import Concept
from hypergen.quickstart.wordings import WORDS


def number_concepts() -> list[Concept]:
    """Kinds of numbers and binary notation."""

    def number(
        name: str, yes: str, says: tuple[str, ...], nots: tuple[str, ...] = (), kin: str = ""
    ) -> Concept:
        return Concept(name, "arithmetic", yes, says, nots, kin)

    def binary(name: str, yes: str, says: tuple[str, ...], nots: tuple[str, ...] = ()) -> Concept:
        return Concept(name, "binary", yes, says, nots)

    concepts = [
        number(
            "prime",
            "2357",
            (
                "is prime",
                "is a prime number",
                "has exactly two divisors",
                "has no divisors but one and itself and is above one",
                "is a prime",
            ),
            kin="prime",
        ),
        number(
            "composite",
            "4689",
            (
                "is composite",
                "is a composite number",
                "is a product of two smaller numbers",
                "is positive and has more than two divisors",
            ),
            kin="prime",
        ),
        number(
            "odd_prime",
            "357",
            ("is an odd prime", "is a prime other than two", "is a prime greater than two"),
            kin="prime",
        ),
        number(
            "semiprime",
            "469",
            (
                "is the product of two primes",
                "is a semiprime",
                "has exactly two prime factors counted with repetition",
            ),
            kin="prime",
        ),
        number(
            "three_divisors",
            "49",
            ("has exactly three divisors", "is the square of a prime"),
            kin="prime",
        ),
        number(
            "four_divisors",
            "68",
            (
                "has exactly four divisors",
                "is divisible by exactly four numbers",
                "has four different factors",
            ),
        ),
        number(
            "square",
            "0149",
            (
                "is a perfect square",
                "is a square number",
                "has a whole square root",
                "is some whole number times itself",
                "can be laid out as a square of dots",
            ),
        ),
        number(
            "cube",
            "018",
            (
                "is a perfect cube",
                "is a cube number",
                "has a whole cube root",
                "is the third power of a whole number",
            ),
        ),
        number(
            "power_of_two",
            "1248",
            (
                "is a power of two",
                "is reached by doubling one again and again",
                "has one as its only odd divisor",
                "is two raised to a whole exponent",
            ),
        ),
        number(
            "power_of_three",
            "139",
            (
                "is a power of three",
                "is reached by tripling one again and again",
                "is three raised to a whole exponent",
            ),
        ),
        number(
            "perfect_power",
            "489",
            (
                "is a square or a cube of a number above one",
                "is a perfect power above one",
                "is a larger number raised to an exponent of at least two",
            ),
        ),
        number(
            "fibonacci",
            "012358",
            (
                "is a Fibonacci number",
                "appears in the Fibonacci sequence",
                "belongs to the sequence where each term is the sum of the previous two",
            ),
            ("is missing from the Fibonacci sequence",),
        ),
        number(
            "lucas",
            "12347",
            (
                "is a Lucas number",
                "appears in the Lucas sequence",
                "belongs to the sequence that begins 2, 1, 3, 4, 7",
            ),
        ),
        number(
            "triangular",
            "0136",
            (
                "is a triangular number",
                "can be laid out as a triangle of dots",
                "is the sum of the first few whole numbers",
            ),
        ),
        number(
            "factorial",
            "126",
            (
                "is a factorial",
                "is the factorial of some number",
                "counts the orders in which some objects can be arranged",
                "is a product of consecutive numbers starting from one",
            ),
        ),
        number(
            "squarefree",
            "123567",
            (
                "is squarefree and positive",
                "is divisible by no square above one",
                "has no repeated prime factor",
            ),
            ("is divisible by four or nine", "has a square above one as a divisor"),
        ),
        number(
            "coprime_to_6",
            "157",
            (
                "is coprime to six",
                "shares no common factor with 6",
                "is divisible by neither two nor three",
            ),
            ("is a multiple of two or three", "shares a factor with six"),
        ),
        number(
            "coprime_to_10",
            "1379",
            (
                "is coprime to ten",
                "shares no factor with 10",
                "is a possible last digit of a large prime",
                "is divisible by neither two nor five",
            ),
            ("is a multiple of two or five",),
        ),
        number(
            "automorphic",
            "0156",
            (
                "is the last digit of its own square",
                "has a square that ends in itself",
                "keeps its last digit when squared",
            ),
        ),
        number(
            "ends_a_square",
            "014569",
            (
                "is the last digit of some perfect square",
                "can be the final digit of a square",
                "occurs at the end of square numbers",
            ),
            ("is never the last digit of a square number",),
        ),
        number(
            "two_squares",
            "0124589",
            (
                "is the sum of two squares, zero allowed",
                "is a sum of two perfect squares",
                "is the squared length of a step on a grid",
            ),
        ),
        binary(
            "binary_two_ones",
            "3569",
            (
                "has exactly two ones in binary",
                "is the sum of two different powers of two",
                "is written with two 1 bits",
            ),
        ),
        binary(
            "binary_odd_ones",
            "12478",
            ("has an odd number of ones in binary", "is odious", "has odd bit parity"),
            ("has an even number of ones in binary", "is evil in the sense of number theory"),
        ),
        binary(
            "binary_twos_bit",
            "2367",
            (
                "has the twos bit set",
                "has a one as its second binary digit from the right",
                "needs the two when built from 8, 4, 2 and 1",
            ),
        ),
        binary(
            "binary_fours_bit",
            "4567",
            (
                "has the fours bit set",
                "has three digits when written in binary",
                "needs the four when built from 8, 4, 2 and 1",
            ),
        ),
        binary(
            "binary_two_digits",
            "23",
            (
                "has two digits when written in binary",
                "is a two-bit number with a leading one",
                "is written 10 or 11 in binary",
            ),
        ),
        binary(
            "binary_palindrome",
            "013579",
            (
                "is a palindrome in binary",
                "reads the same backwards in base two",
                "has a symmetric binary form",
            ),
        ),
        binary(
            "binary_all_ones",
            "137",
            (
                "consists of ones alone in binary",
                "is one less than a power of two and positive",
                "is a Mersenne number above zero",
                "is written 1, 11 or 111 in base two",
            ),
        ),
        binary(
            "binary_adjacent_ones",
            "367",
            (
                "has two ones side by side in binary",
                "contains 11 in its binary form",
                "has neighbouring 1 bits",
            ),
        ),
    ]
    for last, yes in (("6", "46"), ("9", "37"), ("4", "28"), ("1", "19")):
        concepts.append(
            number(
                f"square_ends_in_{last}",
                yes,
                (
                    f"has a square that ends in {WORDS[int(last)]}",
                    f"gives a last digit of {last} when multiplied by itself",
                    f"squares to a number with final digit {last}",
                ),
            )
        )
    return concepts
