"""One property of digits, with the ways to say it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hypergen.quickstart.wordings import negate

_NOT_NEGATABLE = re.compile(r"\b(and|or|nor|not|no|neither|only|but|cannot|nothing)\b|,")


@dataclass(frozen=True)
class Concept:
    """One property of digits and the ways to say it.

    Attributes:
        name: unique key.
        theme: broad area, for reports ("order", "arithmetic", "binary", "shape", "spelling",
            "display", "roman", "keypad", "world").
        yes: the digits that have the property, as a string of numerals.
        says: verb phrases that affirm it.
        nots: verb phrases that affirm its complement, besides the plain negations of `says`.
        kin: concepts with one kin share vocabulary and always fall into the same split.
    """

    name: str
    theme: str
    yes: str
    says: tuple[str, ...]
    nots: tuple[str, ...] = ()
    kin: str = ""

    @property
    def answers(self) -> tuple[bool, ...]:
        """Ten answers, one a digit."""
        return tuple(str(d) in self.yes for d in range(10))

    def phrases(self, positive: bool = True) -> tuple[str, ...]:
        """Returns the phrases for the property or for its complement, plain negations included."""
        same, other = (self.says, self.nots) if positive else (self.nots, self.says)
        plain = [negate(p) for p in other if not _NOT_NEGATABLE.search(p)]
        return tuple(dict.fromkeys([*same, *plain]))
