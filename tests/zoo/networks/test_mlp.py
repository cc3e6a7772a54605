"""MLP: plain where it can be, its starting weights, its groups."""

from __future__ import annotations

import pytest
import torch
import zoo_networks

from hypergen.targets.mlp import is_mlp
from hypergen.zoo.networks import MLP


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh", "elu", "leaky_relu"])
def test_without_norm_it_runs_as_batched_products(activation):
    assert is_mlp(MLP(activation=activation).module())
    assert not is_mlp(MLP(activation=activation, norm="layer").module())


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_signal_neither_vanishes_nor_explodes(activation):
    deep = MLP(64, (64,) * 8, 64, activation)
    x = torch.randn(100, 64)
    flat = torch.stack([deep.spec().initial(i) for i in range(3)])
    assert 0.3 < float(zoo_networks.outputs_of(deep, flat, x).std()) < 2


def test_outputs_have_gain_one():
    spec = MLP(8, (16,), 10).spec()
    assert spec["0.weight"].std == pytest.approx((2 / 8) ** 0.5)
    assert spec["2.weight"].std == pytest.approx(16**-0.5)


def test_one_group_for_each_hidden_layer():
    groups = MLP(8, (16, 4), 10, norm="batch").symmetry().groups
    assert [(g.name, g.size) for g in groups] == [("hidden0", 16), ("hidden1", 4)]
    assert [p.slot for p in groups[0].places] == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "3.weight",
    ]
    assert MLP(8, (), 10).symmetry().groups == ()


def test_only_relu_units_can_be_rescaled():
    assert len(MLP(activation="leaky_relu").scaling()) == 2
    assert MLP(activation="gelu").scaling() == ()
