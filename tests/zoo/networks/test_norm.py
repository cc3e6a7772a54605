"""Batch norm without counter is batch norm."""

from __future__ import annotations

import torch
from torch import nn

from hypergen.zoo.networks.norm import BatchNorm, layer_norm


def test_it_is_the_batch_norm_of_torch():
    ours, theirs = BatchNorm(3), nn.BatchNorm2d(3)
    for step in range(4):
        x = torch.randn(5, 3, 4, 4) * (step + 1) + step
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert BatchNorm(3)(torch.randn(5, 3)).shape == (5, 3)


def test_its_state_has_no_counter():
    norm = BatchNorm(3)
    assert list(norm.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    state = {name: torch.rand(3) for name in norm.state_dict()}  # without torch's metadata
    norm.load_state_dict(state)
    assert torch.equal(norm.running_var, state["running_var"])


def test_layer_norm_normalises_each_image():
    out = layer_norm(3)(torch.randn(5, 3, 4, 4) * 7 + 2)
    assert torch.allclose(out.mean((1, 2, 3)), torch.zeros(5), atol=1e-5)
    assert torch.allclose(out.var((1, 2, 3), correction=0), torch.ones(5), atol=1e-3)
