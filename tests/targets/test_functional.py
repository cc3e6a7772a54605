"""FunctionalTarget: any network, checked names, ties, loops where vmap cannot go."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from torch import nn
from torch.func import functional_call

from hypergen.errors import WeightsError
from hypergen.specs import DeltaSpec, FullSpec, Slot, WeightSpec
from hypergen.targets import FunctionalTarget, make_target


@pytest.mark.parametrize("name", ["mlp_norm", "conv", "tied", "gpt2", "llama"])
@pytest.mark.parametrize("kind", [FullSpec, DeltaSpec])
def test_it_is_the_network_with_these_parameters(name, kind):
    net = tiny.make(name)
    spec = kind(net)
    weights = spec.from_flat(0.2 * torch.randn(3, spec.numel))
    inputs = tiny.batch(name, 6)
    out = tiny.logits(make_target(net, spec)(weights, inputs))
    own = dict(tiny.model(name).named_parameters())
    for i in range(3):
        part = tiny.rows(inputs, 2 * i, 2 * i + 2)
        args, kwargs = ((), part) if isinstance(part, dict) else ((part,), {})
        # functional_call ties the weights itself here.
        parameters = {n: weights[n][i] + (own[n] if kind is DeltaSpec else 0) for n in spec.names}
        expected = tiny.logits(functional_call(tiny.model(name), parameters, args, kwargs))
        assert torch.allclose(out[2 * i : 2 * i + 2], expected, atol=1e-4)


def test_parameters_that_are_not_generated_are_the_base():
    net = tiny.make("mlp")
    spec = FullSpec(net, "out.*")
    same = spec.from_named({n: p.detach() for n, p in net.named_parameters() if n in spec})
    x = tiny.batch("mlp", 2)
    target = make_target(net, spec)
    assert torch.allclose(target(same, x), target.base(x), atol=1e-6)


def test_tied_weights_stay_tied():
    net = tiny.make("tied")
    spec = FullSpec(net)
    target = make_target(net, spec)
    flat = spec.initial().requires_grad_()
    ids = tiny.batch("tied", 2)
    (gradient,) = torch.autograd.grad(target(spec.from_flat(flat), ids).square().sum(), flat)
    # Rows of words that are not in the input get their gradient as outputs alone, so all do.
    rows = spec.unpack(gradient)["embed.weight"]
    assert len(ids.unique()) < 11
    assert bool(rows.abs().sum(1).gt(0).all())
    values = target.parameters_of(spec.from_flat(flat.detach()))
    assert values["head.weight"] is values["embed.weight"]
    assert net.head.weight is net.embed.weight


@pytest.mark.parametrize("kind", [FullSpec, DeltaSpec])
def test_names_that_functional_call_would_ignore_are_an_error(kind):
    net = tiny.make("mlp")
    good = kind(net)
    slots = [Slot("fc9.weight", (2, 2), "weight"), *good.slots]
    wrong = kind.__new__(kind)
    WeightSpec.__init__(wrong, slots, good.config)
    with pytest.raises(WeightsError, match=r"no parameter 'fc9\.weight', which slot 'fc9\.weight'"):
        make_target(net, wrong)
    slots = [Slot("fc1.bias", (2,), "bias")]
    WeightSpec.__init__(wrong, slots, good.config)
    with pytest.raises(WeightsError, match=r"'fc1\.bias' has shape \(2,\), the model's .* \(12,\)"):
        FunctionalTarget(net, wrong)


class Branching(nn.Module):
    """Reads a number: vmap cannot."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        y = self.fc(x)
        return y if float(y.sum()) > 0 else -y


class Losing(nn.Module):
    """Returns a loss for each network beside a dictionary of outputs."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        y = self.fc(x)
        return {"loss": y.square().mean(), "y": y, "note": "constant"}


def test_networks_that_vmap_cannot_trace_run_in_a_loop():
    net = Branching()
    spec = FullSpec(net)
    target = make_target(net, spec)
    assert target.vectorized
    weights = spec.from_flat(torch.randn(5, spec.numel))
    x = torch.randn(10, 4)
    out = target(weights, x)
    assert not target.vectorized
    assert torch.equal(
        out, torch.cat([target(w, x[2 * i : 2 * i + 2]) for i, w in enumerate(weights)])
    )


def test_errors_of_the_network_itself_are_not_hidden():
    net = tiny.make("mlp")
    target = make_target(net, FullSpec(net))
    weights = target.spec.from_flat(torch.randn(2, target.spec.numel))
    with pytest.raises(RuntimeError, match="size"):
        target(weights, torch.randn(4, 5))
    assert target.vectorized


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_outputs_of_any_structure_are_joined(chunk):
    net = Losing()
    spec = FullSpec(net)
    target = FunctionalTarget(net, spec, chunk_size=chunk)
    out = target(spec.from_flat(torch.randn(3, spec.numel)), torch.randn(6, 4))
    assert out["y"].shape == (6, 2)
    assert torch.allclose(out["loss"], out["y"].view(3, -1).square().mean(1))
    assert out["note"] == "constant"


def test_buffers_are_those_of_the_frozen_network():
    net = tiny.make("conv")
    before = net.bn.running_mean.clone()
    target = make_target(net, FullSpec(net))
    target(target.spec.from_flat(torch.randn(2, target.spec.numel)), tiny.batch("conv", 4))
    assert torch.equal(net.bn.running_mean, before)
    assert int(net.bn.num_batches_tracked) == 0


def test_generated_buffers_are_used():
    net = tiny.make("conv")
    spec = FullSpec(net, buffers=True)
    target = make_target(net, spec)
    state = {key: value.clone() for key, value in net.state_dict().items() if key in spec}
    x = tiny.batch("conv", 2)
    same = {key: value[None].expand(2, *value.shape).clone() for key, value in state.items()}
    same["bn.running_mean"][1] += 0.5
    same["bn.running_var"][1] *= 3
    out = target(spec.from_named(same), x.repeat(2, 1, 1, 1))
    assert torch.allclose(out[:2], net(x), atol=1e-5)
    other = tiny.make("conv")
    other.bn.running_mean.add_(0.5)
    other.bn.running_var.mul_(3)
    assert torch.allclose(out[2:], other(x), atol=1e-5)
    assert not torch.allclose(out[2:], out[:2], atol=1e-3)
    assert torch.equal(net.bn.running_mean, state["bn.running_mean"])  # the base is as it was


def test_a_difference_cannot_name_a_buffer():
    net = tiny.make("conv")
    wrong = DeltaSpec.__new__(DeltaSpec)
    WeightSpec.__init__(wrong, [Slot("bn.running_mean", (4,), "other")], {})
    with pytest.raises(WeightsError, match=r"no parameter 'bn\.running_mean'"):
        make_target(net, wrong)


def test_a_frozen_network_in_bfloat16():
    net = tiny.make("mlp").to(torch.bfloat16)
    spec = DeltaSpec(net)
    out = make_target(net, spec)(
        spec.from_flat(torch.zeros(2, spec.numel, dtype=torch.bfloat16)),
        tiny.batch("mlp", 4).bfloat16(),
    )
    assert out.dtype == torch.bfloat16
    assert not math.isnan(float(out.sum()))
