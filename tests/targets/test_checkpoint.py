"""Layers that are computed again give the gradients of layers that are kept."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from torch import nn

from hypergen.errors import SpecError
from hypergen.specs import AdapterSpec, DeltaSpec, LoRASpec
from hypergen.targets import make_target
from hypergen.targets.checkpoint import repeated_layers

SPECS = {
    "lora": lambda m: LoRASpec(m, r=2),
    "adapter": lambda m: AdapterSpec(m, r".*mlp\.(down|c)_proj", 3),
}


def gradients(target, inputs, flat):
    leaf = flat.clone().requires_grad_()
    saved = []

    def count(tensor):
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        logits = tiny.logits(target(target.spec.from_flat(leaf), inputs))
    kept = sum(saved)
    (gradient,) = torch.autograd.grad(logits.square().mean(), leaf)
    return logits.detach(), gradient, kept


@pytest.mark.parametrize("spec_name", sorted(SPECS))
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_gradients_are_the_same_and_less_is_kept(name, spec_name):
    net = tiny.make(name)
    spec = SPECS[spec_name](net)
    flat, inputs = 0.3 * torch.randn(2, spec.numel), tiny.batch(name, 4)
    kept = gradients(make_target(net, spec), inputs, flat)
    again = gradients(make_target(net, spec, checkpoint=True), inputs, flat)
    assert torch.equal(again[0], kept[0])
    assert torch.equal(again[1], kept[1])
    assert bool(again[1].any())
    assert again[2] < 0.7 * kept[2]
    assert all("forward" not in vars(layer) for layer in repeated_layers(net))


def test_each_backward_pass_has_the_weights_of_its_own_call():
    net = tiny.make("llama")
    spec = LoRASpec(net, r=2)
    plain, target = make_target(net, spec), make_target(net, spec, checkpoint=True)
    parts = [0.3 * torch.randn(2, spec.numel, requires_grad=True) for _ in range(2)]
    leaves = [part.detach().requires_grad_() for part in parts]
    batches = [tiny.batch("llama", 4, seed) for seed in range(2)]
    outs = [target(spec.from_flat(x), b).logits for x, b in zip(leaves, batches, strict=True)]
    found = torch.autograd.grad(sum(out.square().mean() for out in outs), leaves)
    for leaf, batch, gradient in zip(leaves, batches, found, strict=True):
        assert torch.equal(gradients(plain, batch, leaf.detach())[1], gradient)


def test_kept_keys_and_scoring_are_as_without():
    net = tiny.make("llama")
    spec = LoRASpec(net, r=2)
    target = make_target(net, spec, checkpoint=True)
    weights, inputs = spec.from_flat(0.3 * torch.randn(1, spec.numel)), tiny.batch("llama", 3)
    expected = make_target(net, spec)(weights, inputs).logits
    with torch.no_grad():
        assert torch.equal(target(weights, inputs).logits, expected)
    out = target(weights, {**inputs, "use_cache": True})
    assert torch.equal(out.logits, expected)
    twin = copy.deepcopy(target)
    assert torch.equal(twin(weights, inputs).logits, expected)


def test_any_network_with_a_list_of_layers_will_do():
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = torch.tanh(layer(x))
            return x

    net = Stack()
    spec = LoRASpec(net, ["layers.0", "layers.2"], r=2)
    flat, x = torch.randn(2, spec.numel), torch.randn(4, 6)
    kept, again = (gradients(make_target(net, spec, c), x, flat) for c in (False, True))
    assert torch.equal(kept[1], again[1])


def test_what_cannot_be_checkpointed_is_told():
    net = tiny.make("mlp")
    with pytest.raises(SpecError, match="MLP repeats no layer: there is nothing to checkpoint"):
        make_target(net, LoRASpec(net, r=2), checkpoint=True)
    with pytest.raises(SpecError, match="for LoRA and bottleneck adapters, not for a 'delta' spec"):
        make_target(net, DeltaSpec(net), checkpoint=True)
