"""Hooks: inert outside a call, whatever happens inside it."""

from __future__ import annotations

import copy
import gc

import pytest
import tiny
import torch
from torch import nn

from hypergen.errors import WeightsError
from hypergen.specs import AdapterSpec, LoRASpec
from hypergen.targets import make_target

pytestmark = pytest.mark.parametrize("kind", [LoRASpec, AdapterSpec])


def case(kind):
    net = tiny.make("mlp")
    spec = kind(net, ["fc1", "fc2"])
    target = make_target(net, spec)
    weights = spec.from_flat(torch.randn(1, spec.numel, generator=torch.Generator().manual_seed(0)))
    return net, target, weights, tiny.batch("mlp", 4)


def test_hooks_are_inert_outside_calls(kind):
    net, target, weights, x = case(kind)
    plain = tiny.make("mlp")(x)
    assert torch.equal(net(x), plain)
    adapted = target(weights, x)
    assert not torch.allclose(adapted, plain)
    assert torch.equal(net(x), plain)
    assert torch.equal(target.base(x), plain)


def test_hooks_are_inert_after_an_error_inside_a_call(kind):
    net, target, weights, x = case(kind)
    plain, adapted = net(x), target(weights, x)
    with pytest.raises(RuntimeError):
        target(weights, x[:, :5])  # fc1 refuses the width
    handle = net.out.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        target(weights, x)
    handle.remove()
    assert torch.equal(net(x), plain)
    assert torch.equal(target(weights, x), adapted)


def test_several_targets_share_a_network(kind):
    net, target, weights, x = case(kind)
    other_spec = kind(net, ["out"])
    other = make_target(net, other_spec)
    one = target(weights, x)
    two = other(other_spec.from_flat(torch.randn(1, other_spec.numel)), x)
    assert torch.equal(target(weights, x), one)
    assert not torch.allclose(one, two)


def test_hooks_go_when_their_target_goes(kind):
    net, target, *_ = case(kind)
    assert len(net.fc1._forward_hooks) == 1
    del target
    gc.collect()
    assert len(net.fc1._forward_hooks) == 0


def test_a_deep_copy_has_hooks_of_its_own(kind):
    """Averaging callbacks copy whole modules: the copy's network must be adapted too."""
    net, target, weights, x = case(kind)
    adapted = target(weights, x)
    twin = copy.deepcopy(target)
    assert twin.model is not net
    assert len(twin.model.fc1._forward_hooks) == 1
    assert torch.equal(twin(weights, x), adapted)
    del target
    gc.collect()
    assert torch.equal(twin(weights, x), adapted)
    assert torch.equal(twin.model(x), net(x))


def test_a_copy_of_the_network_alone_is_plain(kind):
    net, target, weights, x = case(kind)
    twin = copy.deepcopy(net)
    target(weights, x)
    assert torch.equal(twin(x), tiny.make("mlp")(x))


def test_rows_that_are_no_samples_are_refused(kind):
    class Router(nn.Module):
        """Sends some tokens to an expert: whose they are cannot be told from the outside."""

        def __init__(self):
            super().__init__()
            self.expert = nn.Linear(8, 8)

        def forward(self, x):
            return self.expert(x[:-1])

    net = Router()
    spec = kind(net, ["expert"])
    weights = spec.from_flat(torch.randn(2, spec.numel))
    with pytest.raises(WeightsError, match="module 'expert' gets 3 rows for 4 samples"):
        make_target(net, spec)(weights, torch.randn(4, 8))


def test_what_is_computed_once_for_all_samples_is_adapted_for_each(kind):
    class Positions(nn.Module):
        """Adds an embedding of positions, as GPT-2 does: one row for the whole batch."""

        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 8)

        def forward(self, x):
            return x + self.table(torch.arange(x.shape[1])[None])

    net = Positions()
    spec = kind(net, ["table"])
    target, x = make_target(net, spec), torch.randn(4, 3, 8)
    weights = spec.from_flat(torch.randn(2, spec.numel))
    together = target(weights, x)
    loop = torch.cat([target(weights[i], x[2 * i : 2 * i + 2]) for i in range(2)])
    assert torch.allclose(together, loop, atol=1e-5)
    assert not torch.allclose(together - x, (together - x)[[2, 3, 0, 1]])
