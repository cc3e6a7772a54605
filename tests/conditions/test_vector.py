"""Vectors of bits or numbers as a condition."""

from __future__ import annotations

import math

import pytest
import torch

from hypergen.conditions import ConditionEncoder, VectorEncoder
from hypergen.errors import ConditionError


@pytest.fixture
def bits():
    return torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1]])


def test_one_token_a_component_and_unseen_combinations_compose(bits):
    encoder = VectorEncoder(3, dim=5)
    encoder.fit(bits)
    out = encoder(bits)
    assert out.tokens.shape == (4, 3, 5)
    unseen = encoder([[0, 0, 0]])
    # Every token of a combination that was not there is one that was.
    for k, row in enumerate((0, 1, 2)):
        torch.testing.assert_close(unseen.tokens[0, k], out.tokens[row, k])


def test_a_component_changes_its_token_alone(bits):
    encoder = VectorEncoder(3, dim=5)
    a, b = encoder([[1, 0, 0], [1, 1, 0]]).tokens
    changed = (a != b).any(-1).tolist()
    assert changed == [False, True, False]


def test_rows_do_not_depend_on_each_other(bits):
    encoder = VectorEncoder(3, dim=5)
    torch.testing.assert_close(encoder(bits).tokens[2:3], encoder(bits[2:3]).tokens, rtol=0, atol=0)
    torch.testing.assert_close(encoder(bits[2]).tokens, encoder(bits[2:3].tolist()).tokens)


def test_statistics_are_saved(bits):
    encoder = VectorEncoder(3, dim=5, names=["zero", "one", "two"])
    encoder.fit(bits * 40)
    again = ConditionEncoder.from_dict(encoder.to_dict())
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(bits * 40).tokens, encoder(bits * 40).tokens)
    assert float(again.statistics.high[0]) == 40


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([[1, 0]], "2 numbers, expected 3"),
        ([1, 0], r"\[B, 3\]"),
        ([], "B, 3"),
        (torch.zeros(0, 3), "no vector"),
        ("abc", "must be numbers"),
        ([[1, math.nan, 0]], "component 1 of input 0 is nan"),
    ],
)
def test_bad_vectors_are_told(inputs, message):
    with pytest.raises(ConditionError, match=message):
        VectorEncoder(3).eval()(inputs)


def test_far_values_are_warned_of_with_their_range(bits):
    encoder = VectorEncoder(3, names=["a", "b", "c"]).eval()
    encoder(bits * 100)  # knows no range yet
    encoder.fit(bits)
    encoder([[1.3, 0, 0]])  # near
    with pytest.warns(UserWarning, match="b of input 0 is 7, far outside .* 0 to 1"):
        encoder([[1, 7, 0]])
    encoder.train()([[1, 7, 0]])  # the training set is checked by the data module


def test_arguments_are_checked():
    with pytest.raises(ConditionError, match="positive"):
        VectorEncoder(0)
    with pytest.raises(ConditionError, match="2 names for the 3"):
        VectorEncoder(3, names=["a", "b"])


def test_gradient_reaches_every_component(bits):
    encoder = VectorEncoder(3, dim=5)
    encoder(bits).pooled.square().sum().backward()
    assert encoder.base.grad.abs().sum(1).gt(0).all()
    assert encoder.slope.grad.abs().sum(1).gt(0).all()
