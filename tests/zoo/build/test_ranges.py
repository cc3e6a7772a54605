"""Hyperparameters that are drawn for every run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypergen._utils.errors import UsageError
from hypergen.zoo.build import Range

NUMBERS = st.floats(1e-6, 1e3)


@given(st.sampled_from(["uniform", "log_uniform"]), NUMBERS, NUMBERS, st.integers(0, 1000))
def test_a_draw_lies_in_its_range_and_depends_on_the_parts_alone(kind, a, b, run):
    chosen = Range(kind, (min(a, b), max(a, b)))
    value = chosen.draw(0, "lr", run)
    assert min(a, b) <= value <= max(a, b)
    assert value == Range.from_plain(chosen.to_plain()).draw(0, "lr", run)


def test_draws_cover_the_range_as_their_kind_says():
    uniform = [Range("uniform", (1.0, 100.0)).draw(0, i) for i in range(2000)]
    log = [Range("log_uniform", (1.0, 100.0)).draw(0, i) for i in range(2000)]
    assert sum(uniform) / 2000 == pytest.approx(50.5, abs=2)
    assert sum(map(math.log10, log)) / 2000 == pytest.approx(1.0, abs=0.05)
    drawn = [Range("choice", (1, 2, 5)).draw(0, i) for i in range(300)]
    assert {drawn.count(value) > 70 for value in (1, 2, 5)} == {True}


def test_a_number_is_a_range_of_one():
    one = Range.from_plain(0.5)
    assert one.draw(0) == one.draw(1) == one.to_plain() == 0.5
    assert Range.from_plain(one) is one


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"unifrom": [1, 2]}, "Did you mean 'uniform'?"),
        ({"uniform": [2, 1]}, r"uniform needs \[LOW, HIGH\]"),
        ({"uniform": [1]}, r"uniform needs \[LOW, HIGH\]"),
        ({"log_uniform": [0, 1]}, "above 0"),
        ({"choice": []}, "at least one"),
        ({"choice": ["a"]}, "finite numbers, not 'a'"),
        ({"uniform": [1, float("inf")]}, "finite numbers, not inf"),
        ("0.1", "is needed, not '0.1'"),
        (True, "is needed, not True"),
        ({"uniform": 1}, "is needed"),
    ],
)
def test_a_wrong_range_says_what_is_needed(value, message):
    with pytest.raises(UsageError, match=message):
        Range.from_plain(value)
