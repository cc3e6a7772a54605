"""Balanced ReLU units: the same function, equal norms, one scale."""

from __future__ import annotations

import pytest
import torch
import zoo_networks
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen.errors import SpecError, WeightsError
from hypergen.zoo.canonical import (
    Place,
    ScalingGroup,
    align,
    augment,
    balance_units,
)
from hypergen.zoo.canonical.symmetry import entries_of
from hypergen.zoo.networks import MLP

RELU = [name for name, network in zoo_networks.NETWORKS.items() if network.scaling()]


def test_the_architectures_with_relu_units():
    assert {"mlp-relu", "mlp-leaky_relu", "mlp-layer", "cnn-plain", "cnn-batch"} < set(RELU)
    assert not {"mlp-gelu", "mlp-tanh", "vit", "siren", "linear"} & set(RELU)


@pytest.mark.parametrize("name", RELU)
def test_the_function_stays_and_a_second_time_changes_nothing(name):
    network = zoo_networks.NETWORKS[name]
    spec, flat = network.spec(), zoo_networks.weights_of(network, 4)
    out = balance_units(flat, spec, network.scaling())
    assert float((out - flat).abs().max()) > 1e-3
    zoo_networks.assert_same_function(network, flat, out)
    again = balance_units(out, spec, network.scaling())
    assert torch.allclose(again, out, rtol=1e-6, atol=1e-7)
    for group in network.scaling():
        norms = [
            sum(
                out[:, entries_of(spec, group.size, place)].square().sum(2)
                for place in (group.incoming, group.outgoing)[side]
            )
            for side in (0, 1)
        ]
        assert torch.allclose(*norms, rtol=1e-4)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), spread=st.floats(0.1, 3))
def test_rescaled_networks_become_equal(seed, spread):
    network = MLP(4, (5, 3), 2)
    spec = network.spec()
    flat = zoo_networks.weights_of(network, 2, seed)
    generator = torch.Generator().manual_seed(seed)
    scaled = {key: value.clone() for key, value in spec.unpack(flat).items()}
    for here, after, units in (("0", "2", 5), ("2", "4", 3)):
        s = (spread * torch.randn(2, units, generator=generator)).exp()
        scaled[f"{here}.weight"] *= s[..., None]
        scaled[f"{here}.bias"] *= s
        scaled[f"{after}.weight"] /= s[:, None]
    first, second = (balance_units(f, spec, network.scaling()) for f in (flat, spec.pack(scaled)))
    assert torch.allclose(first, second, rtol=1e-4, atol=1e-5)
    # It commutes with permutations, so both symmetries can be fixed one after the other.
    copies = augment(second, network.symmetry(), seed)
    assert torch.allclose(align(copies, first, network.symmetry()), first, rtol=1e-4, atol=1e-5)


def test_dead_units_are_left_alone():
    network = MLP(4, (3,), 2)
    spec = network.spec()
    named = {key: value.clone() for key, value in spec.unpack(torch.ones(1, spec.numel)).items()}
    named["0.weight"][:, 0] = 0
    named["0.bias"][:, 0] = 0
    named["2.weight"][:, :, 1] = 0
    flat = spec.pack(named)
    out = spec.unpack(balance_units(flat, spec, network.scaling()))
    assert torch.equal(out["0.weight"][:, :2], named["0.weight"][:, :2])
    assert torch.equal(out["2.weight"][..., :2], named["2.weight"][..., :2])
    assert not torch.equal(out["0.weight"][:, 2], named["0.weight"][:, 2])
    zero = torch.zeros(2, spec.numel)
    assert torch.equal(balance_units(zero, spec, network.scaling()), zero)


def test_bad_input_is_refused():
    spec = MLP(4, (3,), 2).spec()
    flat = torch.ones(2, spec.numel)
    wrong = ScalingGroup("units", 3, (Place("0.wait", 0),), (Place("2.weight", 1),))
    with pytest.raises(SpecError, match=r"names slot '0\.wait'"):
        balance_units(flat, spec, (wrong,))
    with pytest.raises(WeightsError, match=r"not \[2, 3\]"):
        balance_units(flat[:, :3], spec, ())
    flat[0, 0] = float("inf")
    with pytest.raises(WeightsError, match="NaN or infinity"):
        balance_units(flat, spec, ())
    assert balance_units(flat[:0], spec, ()).shape == (0, spec.numel)
