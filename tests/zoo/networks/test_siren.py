"""SIREN: the formula and the starting weights of the paper."""

from __future__ import annotations

import pytest
import torch
import zoo_networks

from hypergen.zoo.networks import SIREN


def test_the_formula():
    net = SIREN(2, (5,), 3, omega=7.0)
    flat, x = zoo_networks.weights_of(net, 1), zoo_networks.inputs_of(net, 4)
    w = net.spec().unpack(flat[0])
    hidden = torch.sin(7.0 * (x @ w["0.weight"].T + w["0.bias"]))
    expected = hidden @ w["2.weight"].T + w["2.bias"]
    assert torch.allclose(zoo_networks.outputs_of(net, flat, x)[0], expected, atol=1e-5)
    assert "omega=7.0" in repr(net.module())


@pytest.mark.parametrize(
    ("slot", "bound"),
    [
        ("0.weight", 1 / 2),
        ("2.weight", (6 / 64) ** 0.5 / 30),
        ("4.weight", (6 / 48) ** 0.5 / 30),
        ("0.bias", 2**-0.5),
        ("2.bias", 64**-0.5),
    ],
)
def test_it_starts_with_the_variance_of_the_papers_uniform(slot, bound):
    sample = torch.empty(200_000).uniform_(-bound, bound)
    assert SIREN(2, (64, 48), 1).spec()[slot].std == pytest.approx(float(sample.std()), rel=0.01)
