"""Wanted and current metric values as a condition."""

from __future__ import annotations

import math

import pytest
import torch

from hypergen.conditions import ConditionEncoder, MetricEncoder
from hypergen.errors import ConditionError


def test_values_and_their_difference_are_tokens():
    encoder = MetricEncoder(dim=6, frequencies=4)
    encoder.fit(torch.tensor([0.1, 0.5, 0.9]))
    out = encoder([[0.1, 0.9], [0.1, 0.5]])
    assert out.tokens.shape == (2, 3, 6)
    same = (out.tokens[0] == out.tokens[1]).all(-1).tolist()
    assert same == [True, False, False]
    assert MetricEncoder(["accuracy"], dim=6)([[0.3]]).tokens.shape == (1, 1, 6)
    assert len(encoder([0.1, 0.9])) == 1


def test_logarithms_tell_small_losses_apart():
    values = torch.tensor([1e-3, 1e-2, 1e-1, 1.0])
    spread = {}
    for log in (False, True):
        encoder = MetricEncoder(["loss"], dim=6, log=log)
        encoder.fit(values)
        z = encoder.statistics(encoder._scale(values[:2, None]))
        spread[log] = float((z[1] - z[0]).abs())
    assert spread[True] > 0.5 > 0.05 > spread[False]


def test_current_and_wanted_have_one_scale():
    encoder = MetricEncoder(dim=6)
    encoder.fit(torch.tensor([[0.2, 0.4], [0.6, 0.8]]))
    assert encoder.statistics.mean.shape == (1,)
    torch.testing.assert_close(encoder.statistics.mean, torch.tensor([0.5]))


def test_statistics_are_saved():
    encoder = MetricEncoder(dim=6, log=True)
    encoder.fit(torch.tensor([0.1, 0.5, 0.9]))
    again = ConditionEncoder.from_dict(encoder.to_dict())
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again([0.1, 0.5]).tokens, encoder([0.1, 0.5]).tokens)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([[0.1, 0.2, 0.3]], "3 numbers, expected 2"),
        ([[0.1, math.nan]], "the wanted value of input 0 is nan"),
        ([[0.1, 0.2], [0.0, 0.2]], "the current value of input 1 is 0; it must be above 0"),
    ],
)
def test_bad_values_are_told(inputs, message):
    encoder = MetricEncoder(log=True).eval()
    encoder.fit(torch.tensor([0.1, 0.5]))
    with pytest.raises(ConditionError, match=message):
        encoder(inputs)


def test_far_values_are_warned_of_in_their_own_unit():
    encoder = MetricEncoder(log=True).eval()
    encoder.fit(torch.tensor([0.1, 0.5]))
    with pytest.warns(UserWarning, match="the wanted value of input 0 is 1e-05, .* 0.1 to 0.5"):
        encoder([[0.2, 1e-5]])


def test_missing_values_are_left_out_of_the_statistics():
    encoder = MetricEncoder()
    encoder.fit(torch.tensor([0.0, math.nan, 1.0]))
    torch.testing.assert_close(encoder.statistics.mean, torch.tensor([0.5]))
    with pytest.raises(ConditionError, match="no finite value"):
        encoder.fit(torch.tensor([math.nan]))


def test_arguments_are_checked():
    with pytest.raises(ConditionError, match="different names"):
        MetricEncoder(["a", "a"])
