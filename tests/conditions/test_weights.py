"""Current weights as a condition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hypergen.conditions import ConditionEncoder, FusedEncoder, MetricEncoder, WeightsEncoder
from hypergen.errors import ConditionError
from hypergen.specs import FullSpec, TokenLayout


@pytest.fixture
def spec():
    return FullSpec(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))


@pytest.fixture
def encoder(spec):
    torch.manual_seed(0)
    return WeightsEncoder.from_layout(TokenLayout(spec, 5), dim=6)


def test_tokens_are_those_of_the_layout(spec, encoder):
    flat = torch.randn(2, spec.numel)
    out = encoder(flat)
    layout = TokenLayout(spec, 5)
    assert out.tokens.shape == (2, len(layout), 6)
    expected = encoder.project(layout.encode(flat)) + encoder.position(encoder.place)
    torch.testing.assert_close(out.tokens, expected)
    assert torch.equal(out.weights, flat)


def test_every_number_changes_its_own_token(spec, encoder):
    flat = torch.randn(1, spec.numel)
    base = encoder(flat).tokens[0]
    moved = encoder(flat + torch.eye(spec.numel)).tokens
    assert (moved != base).any(-1).sum(1).eq(1).all()


def test_large_weights_in_half_precision_are_finite(spec):
    encoder = WeightsEncoder.from_layout(TokenLayout(spec, 5), dim=6).eval().half()
    flat = torch.full((2, spec.numel), 3e4)  # whose sum is not
    assert torch.isfinite(encoder(flat).weights).all()


def test_pooled_to_one_token(spec):
    encoder = WeightsEncoder.from_layout(TokenLayout(spec, 5), dim=6, pool=True)
    flat = torch.randn(2, spec.numel)
    out = encoder(flat)
    assert out.tokens.shape == (2, 1, 6)
    assert not torch.equal(out.tokens[0], out.tokens[1])
    assert torch.equal(out.weights, flat)


def test_ways_to_give_weights(spec, encoder):
    flat = torch.randn(2, spec.numel)
    weights = spec.from_flat(flat)
    expected = encoder(flat).tokens
    for given in (weights, [weights[0], weights[1]], [flat[0], flat[1]]):
        torch.testing.assert_close(encoder(given).tokens, expected)
    named = {name: tensor[0] for name, tensor in weights.named().items()}
    torch.testing.assert_close(encoder(named).tokens, expected[:1])


def test_slots_are_scaled_by_saved_statistics(spec, encoder):
    flat = torch.randn(2, spec.numel)
    before = encoder(flat).tokens
    encoder.fit(torch.zeros(len(spec)), torch.full((len(spec),), 3.0))
    torch.testing.assert_close(encoder(3 * flat).tokens, before)
    again = ConditionEncoder.from_dict(encoder.to_dict())
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(3 * flat).tokens, before)


def test_other_weights_are_told(spec, encoder):
    other = FullSpec(nn.Sequential(nn.Linear(3, 4)))
    with pytest.raises(ConditionError, match=r"lack the slot '2\.bias'"):
        encoder(other.from_flat(torch.zeros(1, other.numel)))
    with pytest.raises(ConditionError, match=r"shape \[1, 5\], expected"):
        encoder(torch.zeros(5))
    with pytest.raises(ConditionError, match="no weights"):
        encoder([])
    named = {name: t[0] for name, t in spec.from_flat(torch.zeros(1, spec.numel)).named().items()}
    with pytest.raises(ConditionError, match=r"7 numbers in slot '0\.bias', expected 4"):
        encoder({**named, "0.bias": torch.zeros(7)})
    bad = torch.zeros(1, spec.numel)
    bad[0, -1] = float("nan")
    with pytest.raises(ConditionError, match=f"slot '{spec.names[-1]}'"):
        encoder.eval()(bad)


def test_arguments_are_checked():
    with pytest.raises(ConditionError, match="needs slots"):
        WeightsEncoder([], [])
    with pytest.raises(ConditionError, match="no tokens of 4 numbers"):
        WeightsEncoder([("a", 4)], [[2, 3, 0, 0, 0]])


def test_fused_with_a_metric_the_weights_travel_along(spec, encoder):
    fused = FusedEncoder({"weights": encoder, "metric": MetricEncoder(dim=4)}, dim=8)
    flat = torch.randn(3, spec.numel)
    values = [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]
    out = fused({"weights": flat, "metric": values})
    assert out.tokens.shape == (3, 3 + len(TokenLayout(spec, 5)), 8)
    assert torch.equal(out.weights, flat)
    assert torch.equal(out[1].weights, flat[1:2])
    assert torch.equal(out.trim().detach().to(torch.float64).weights, flat.double())
    assert torch.equal(type(out).cat([out[0], out[1]]).weights, flat[:2])
    with pytest.raises(ConditionError, match="input 1 has no weights"):
        fused({"weights": [flat[0], None, flat[2]], "metric": values})


def test_conditions_with_and_without_weights_do_not_mix(spec, encoder):
    out = encoder(torch.zeros(1, spec.numel))
    bare = type(out)(out.tokens, out.mask, out.pooled)
    with pytest.raises(ConditionError, match="with and without weights"):
        type(out).cat([out, bare])
    with pytest.raises(ConditionError, match="weights of a condition"):
        type(out)(out.tokens, out.mask, out.pooled, weights=torch.zeros(2, 3))
