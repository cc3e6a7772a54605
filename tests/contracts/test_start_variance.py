"""Generated networks start with activations (or gradients) of variance one, at any depth."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from hypergen.conditions import Condition, HashingEncoder
from hypergen.generators import MLPGenerator, TextToLoRA, TransformerGenerator
from hypergen.specs import FullSpec, Weights
from hypergen.targets import Target, make_target

WIDTH, DEPTH, NETWORKS, SAMPLES = 32, 8, 24, 16


class Deep(nn.Module):
    """ReLU layers of two alternating widths; returns the activations of every layer."""

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__()
        widths = [WIDTH * (1 + i % 2) for i in range(depth + 1)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        out = []
        for layer in self.layers:
            x = torch.relu(layer(x))
            out.append(x)
        return out


GENERATORS = {
    "mlp": lambda s, e, init: MLPGenerator(s, e, hidden=32, depth=1, init=init),
    "transformer_group": lambda s, e, init: TransformerGenerator(
        s, e, dim=32, depth=1, heads=2, share="group", most_rows=8, init=init
    ),
    "transformer_slot": lambda s, e, init: TransformerGenerator(
        s, e, dim=32, depth=1, heads=2, share="slot", most_rows=8, init=init
    ),
    "transformer_row": lambda s, e, init: TransformerGenerator(
        s, e, dim=32, depth=1, heads=2, share="row", most_rows=8, init=init
    ),
    "t2l_L": lambda s, e, init: TextToLoRA(s, e, "L", hidden=32, depth=1, init=init),
    "t2l_M": lambda s, e, init: TextToLoRA(s, e, "M", hidden=32, depth=1, init=init),
    "t2l_S": lambda s, e, init: TextToLoRA(s, e, "S", hidden=32, depth=1, init=init),
}


# Heads that no two rows or layers share. Those that share one (transformer_group, t2l_S) emit
# layers that are alike, so that what one layer adds or takes, the next ones add or take again:
# each of their tensors has the right size, the product of many of them has not.
DEEP = ["mlp", "transformer_slot", "transformer_row", "t2l_L", "t2l_M"]


def start(name: str, init: str, seed: int, depth: int = DEPTH) -> tuple[Target, Weights]:
    model = Deep(depth)
    spec = FullSpec(model)
    torch.manual_seed(seed)
    net = GENERATORS[name](spec, HashingEncoder(16), init)
    return make_target(model, spec), net(Condition.from_tokens(torch.randn(NETWORKS, 3, 16)))


@pytest.mark.parametrize("init", ["theta0", "forward", "hyperfan_in", "hyperfan_out"])
@pytest.mark.parametrize("name", GENERATORS)
def test_each_tensor_has_its_size(name, init):
    with torch.no_grad():
        runs = [start(name, init, seed)[1] for seed in range(4)]
    for slot in runs[0].spec:
        size = torch.stack([w[slot.name].square().mean() for w in runs]).mean().sqrt()
        fan = slot.fan_out if init == "hyperfan_out" else slot.fan_in
        expected = 0.0 if slot.role == "bias" else (2 / fan) ** 0.5
        assert float(size) == pytest.approx(expected, rel=0.2), slot.name


@pytest.mark.parametrize("init", ["theta0", "forward", "hyperfan_in"])
@pytest.mark.parametrize("name", DEEP)
def test_activations_keep_their_size(name, init):
    squares = []
    with torch.no_grad():
        for seed in range(4):
            target, weights = start(name, init, seed)
            # Mean square one, as behind a layer: that is what fan-in factors count on.
            layers = target(weights, torch.randn(NETWORKS * SAMPLES, WIDTH))
            squares.append(torch.stack([layer.square().mean() for layer in layers]))
    means = torch.stack(squares).mean(0)
    assert float(means[0]) == pytest.approx(1, rel=0.25)
    assert bool((means > 0.3).all()), means
    assert bool((means < 3).all()), means


@pytest.mark.parametrize("depth", [1, 4, DEPTH])
@pytest.mark.parametrize("name", DEEP)
def test_gradients_keep_their_size(name, depth):
    squares = []
    for seed in range(4):
        target, weights = start(name, "hyperfan_out", seed, depth)
        x = torch.randn(NETWORKS * SAMPLES, WIDTH, requires_grad=True)
        last = target(weights.detach(), x)[-1]
        # Mean square one in front of the last ReLU, which passes on half of what comes here.
        (gradient,) = torch.autograd.grad((last * 2**0.5 * torch.randn_like(last)).sum(), x)
        # In front of the first layer no ReLU has halved it yet.
        squares.append(gradient.square().mean() / 2)
    assert 0.3 < float(torch.stack(squares).mean()) < 3


def test_the_bounds_tell_a_wrong_start():
    """A plain start (no hyperfan factor: every head N(0, 1/features)) is far outside."""
    model = Deep()
    spec = FullSpec(model)
    torch.manual_seed(0)
    net = GENERATORS["mlp"](spec, HashingEncoder(16), "hyperfan_in")
    with torch.no_grad():
        for weight in net.head.weights:
            weight.normal_(std=32**-0.5)
        weights = net(Condition.from_tokens(torch.randn(NETWORKS, 3, 16)))
        layers = make_target(model, spec)(weights, torch.randn(NETWORKS * SAMPLES, WIDTH))
    assert float(layers[-1].square().mean()) > 1e3
