"""Every phrase of every drill against a rule read off its own words."""

import re
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from hypergen.quickstart.drills import drill_concepts
from hypergen.quickstart.properties import all_concepts
from hypergen.quickstart.sentences import complement, function_key
from hypergen.quickstart.wordings import WORDS

DRILLS = drill_concepts(())
NAMES = list(WORDS)
RULES: dict[str, Callable[..., bool]] = {
    r"(?:divides|is a divisor of|is a factor of|goes into|has) (N)(?: evenly| without a remainder"
    r"| among its multiples)?": lambda d, n: d in [k for k in range(1, n + 1) if n / k == n // k],
    r"is (?:a multiple of|divisible by) (N)": lambda d, m: d in range(0, 10, m),
    r"leaves remainder (N) when divided by (N)": lambda d, r, m: divmod(d, m)[1] == r,
    r"is congruent to (N) modulo (N)": lambda d, r, m: d in range(r, 10, m),
    r"is (N) more than a multiple of (N)": lambda d, r, m: d in range(r, 10, m),
    r"leaves a remainder above (N) when divided by (N)": lambda d, r, m: divmod(d, m)[1] > r,
    r"becomes a multiple of (N) when (N) is added to it": lambda d, m, k: d + k in range(0, 20, m),
    r"gives a number divisible by (N) when added to (N)": lambda d, m, k: d + k in range(0, 20, m),
    r"differs from (N) by exactly (N)": lambda d, k, j: d in (k - j, k + j),
    r"is (N) plus or minus (N)": lambda d, k, j: d in (k - j, k + j),
    r"differs from (N) by at most (N)": lambda d, k, j: d in range(k - j, k + j + 1),
    r"is within (N) of (N)": lambda d, j, k: d in range(k - j, k + j + 1),
    r"differs from (N) by more than (N)": lambda d, k, j: d not in range(k - j, k + j + 1),
    r"is more than (N) away from (N)": lambda d, j, k: d not in range(k - j, k + j + 1),
    r"has a value between (N) and (N), both included": lambda d, a, b: d in range(a, b + 1),
    r"stays within the limits (N) and (N)": lambda d, a, b: d in range(a, b + 1),
    r"is strictly between (N) and (N)": lambda d, a, b: d in range(a + 1, b),
    r"is greater than (N) and less than (N)": lambda d, a, b: d in range(a + 1, b),
    r"is less than (N) or greater than (N)": lambda d, a, b: d not in range(a, b + 1),
    r"is either below (N) or above (N)": lambda d, a, b: d not in range(a, b + 1),
    r"is (?:closer|nearer) to (N) than to (N)": lambda d, a, b: 2 * d < a + b,
    r"gives more than (N) when multiplied by (N)": lambda d, n, k: sum([d] * k) > n,
    r"exceeds (N) when taken (N) times": lambda d, n, k: sum([d] * k) > n,
    r"gives a last digit of (N) when multiplied by (N)": lambda d, e, k: str(d * k)[-1] == str(e),
    r"ends in (N) when taken (N) times": lambda d, e, k: str(d * k)[-1] == str(e),
    r"gives a sum greater than (N) when (N) is added to it": lambda d, n, k: d > n - k,
    r"is more than (N) together with (N)": lambda d, n, k: d > n - k,
    r"(?:is spelled with both|has the letters) (\w) and (\w)(?: in its English name)?":
        lambda d, x, y: {x, y} <= set(WORDS[d]),
    r"(?:is spelled with|has the letter) (\w) or (\w)(?: in its English name)?":
        lambda d, x, y: bool({x, y} & set(WORDS[d])),
    r"has (\w) as the second letter of its name": lambda d, x: WORDS[d].find(x, 1) == 1,
    r"has (\w) as the third letter of its name": lambda d, x: WORDS[d].find(x, 2) == 2,
}  # fmt: skip
NUMBER = "|".join([r"\d+", *NAMES])
COMPILED = [(re.compile(p.replace("(N)", f"({NUMBER})")), rule) for p, rule in RULES.items()]


def value(word: str) -> int | str:
    if word.isdigit():
        return int(word)
    return NAMES.index(word) if word in NAMES else word


def test_every_phrase_means_its_digits() -> None:
    used = set()
    for drill in DRILLS:
        for phrase in drill.says:
            matches = [(p, rule, m) for p, rule in COMPILED if (m := p.fullmatch(phrase))]
            assert len(matches) == 1, phrase
            pattern, rule, match = matches[0]
            used.add(pattern.pattern)
            parameters = [value(word) for word in match.groups()]
            assert drill.answers == tuple(rule(d, *parameters) for d in range(10)), phrase
    assert len(used) == len(RULES)


def test_there_are_many_and_each_is_said_once() -> None:
    assert len(DRILLS) >= 300
    assert len({d.name for d in DRILLS}) == len(DRILLS)
    meaning: dict[str, tuple[bool, ...]] = {}
    for drill in DRILLS:
        for phrase in drill.says:
            assert meaning.setdefault(phrase, drill.answers) == drill.answers


@given(names=st.sets(st.sampled_from([c.name for c in all_concepts()]), min_size=1, max_size=30))
def test_reserved_functions_never_appear(names: set[str]) -> None:
    forbidden = {function_key(c.answers) for c in all_concepts() if c.name in names}
    for drill in drill_concepts(forbidden):
        assert drill.answers not in forbidden
        assert complement(drill.answers) not in forbidden


def test_reserved_letters_are_not_named() -> None:
    for drill in drill_concepts((), reserved_letters="et"):
        if "_letters_" in drill.name:
            assert not any(re.search(r"\b[et]\b", phrase) for phrase in drill.says)
