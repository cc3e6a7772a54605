"""Facts about the English names of the ten digits, "zero" to "nine" (y is not a vowel)."""

from __future__ import annotations

from hypergen.quickstart.concept import Concept
from hypergen.quickstart.wordings import WORDS


def spelling_concepts() -> list[Concept]:
    """Letters, length and sound of the name."""

    def spelling(name: str, yes: str, says: tuple[str, ...], nots: tuple[str, ...] = ()) -> Concept:
        return Concept(name, "spelling", yes, says, nots)

    concepts = []
    for letter in "eionrtsfvhuwxg":
        yes = "".join(str(d) for d in range(10) if letter in WORDS[d])
        concepts.append(
            spelling(
                f"letter_{letter}",
                yes,
                (
                    f"has the letter {letter} in its English name",
                    f"is spelled with the letter {letter}",
                    f"contains '{letter}' when written out",
                    f"has a name with {'an' if letter in 'eionrsfhx' else 'a'} {letter} in it",
                ),
                (f"is spelled without the letter {letter}", f"has no {letter} in its name"),
            )
        )
    for n in (3, 4, 5):
        w = WORDS[n]
        yes = "".join(str(d) for d in range(10) if len(WORDS[d]) == n)
        concepts.append(
            spelling(
                f"{n}_letters",
                yes,
                (
                    f"has an English name of {w} letters",
                    f"is spelled with {n} letters",
                    f"is a {w}-letter word when written out",
                    f"has exactly {n} letters in its name",
                ),
            )
        )
    for letter in "tfs":
        yes = "".join(str(d) for d in range(10) if WORDS[d].startswith(letter))
        concepts.append(
            spelling(
                f"starts_with_{letter}",
                yes,
                (
                    f"has a name that starts with {letter}",
                    f"begins with the letter {letter} in English",
                    f"has {letter} as the first letter of its name",
                ),
            )
        )
    concepts += [
        spelling(
            "ends_with_e",
            "1359",
            (
                "has a name that ends with e",
                "has e as the last letter of its name",
                "is spelled with a final e",
            ),
        ),
        spelling(
            "ends_with_o",
            "02",
            (
                "has a name that ends with o",
                "has o as the last letter of its name",
                "is spelled with a final o",
            ),
        ),
        spelling(
            "one_vowel",
            "26",
            (
                "has a single vowel in its name",
                "has exactly one vowel when written out",
                "is spelled with just one vowel",
            ),
            ("has more than one vowel in its name",),
        ),
        spelling(
            "vowel_first",
            "18",
            (
                "has a name that starts with a vowel",
                "begins with a vowel letter in English",
                "has a vowel as its first letter",
            ),
            ("has a name that starts with a consonant", "begins with a consonant"),
        ),
        spelling(
            "vowel_last",
            "012359",
            (
                "has a name that ends with a vowel",
                "ends in a vowel in English",
                "has a vowel as its last letter",
            ),
            ("has a name that ends with a consonant", "ends in a consonant"),
        ),
        spelling(
            "repeated_letter",
            "379",
            (
                "has a letter that occurs twice in its name",
                "repeats a letter when spelled",
                "uses some letter more than once in English",
            ),
            ("has a name of all different letters", "is spelled without repeating a letter"),
        ),
        spelling(
            "two_syllables",
            "07",
            (
                "has a name of two syllables",
                "is pronounced with two syllables",
                "takes two beats to say in English",
            ),
            ("has a name of one syllable", "is pronounced as a single syllable"),
        ),
        spelling(
            "early_in_alphabet",
            "458",
            (
                "has a name that starts in the first half of the alphabet",
                "begins with a letter between a and m",
                "has an initial letter before n",
            ),
            ("has a name that starts in the second half of the alphabet",),
        ),
        spelling(
            "late_in_alphabet",
            "02367",
            (
                "has a name that starts after the letter p",
                "begins with a letter between q and z",
                "has an initial letter after p",
            ),
        ),
    ]
    return concepts
