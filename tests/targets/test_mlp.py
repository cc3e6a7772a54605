"""MLPs as batched products are the MLPs that vmap runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hypergen.specs import DeltaSpec, FullSpec
from hypergen.targets import FunctionalTarget
from hypergen.targets.mlp import is_mlp


def network(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(5, 7, bias=bias), nn.GELU(), nn.Dropout(0.5), nn.Linear(7, 3, bias=bias)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("spec_class", [FullSpec, DeltaSpec])
@pytest.mark.parametrize("select", ["*", "*.weight", "*.bias", "0.*", "3.bias"])
def test_equals_vmap_forward_and_backward(spec_class, select):
    model = network()
    spec = spec_class(model, select)
    fast, general = FunctionalTarget(model, spec), FunctionalTarget(model, spec, chunk_size=64)
    assert fast._is_mlp
    assert not general._is_mlp
    x = torch.randn(12, 5)
    gradients = []
    for target in (fast, general):
        flat = torch.randn(4, spec.numel, generator=torch.Generator().manual_seed(1))
        flat.requires_grad_()
        out = target(spec.from_flat(flat), x)
        out.square().sum().backward()
        gradients.append((out.detach(), flat.grad))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_layers_without_bias_and_layers_used_twice():
    model = network(bias=False)
    spec = FullSpec(model)
    w = spec.from_flat(torch.randn(2, spec.numel))
    x = torch.randn(6, 5)
    general = FunctionalTarget(model, spec, chunk_size=64)
    torch.testing.assert_close(FunctionalTarget(model, spec)(w, x), general(w, x))
    layer = nn.Linear(5, 5)
    twice = nn.Sequential(layer, nn.Tanh(), layer)
    spec = FullSpec(twice)
    w = spec.from_flat(torch.randn(2, spec.numel))
    general = FunctionalTarget(twice, spec, chunk_size=64)
    torch.testing.assert_close(FunctionalTarget(twice, spec)(w, x), general(w, x))


def test_what_is_no_mlp_is_left_to_vmap():
    assert is_mlp(network())
    assert not is_mlp(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
    assert not is_mlp(nn.Sequential(nn.Sequential(nn.Linear(4, 4))))

    class Own(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + 1

    assert not is_mlp(Own(nn.Linear(4, 4)))
