"""LoRA in float32 on a frozen network in bfloat16, or whose linear layers hold int8."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from torch import Tensor, nn

from hypergen.errors import SpecError
from hypergen.specs import LoRASpec, match_modules, model_fingerprint
from hypergen.targets import make_target


class Int8Linear(nn.Module):
    """Stands for the layers of quantisation libraries: no `Linear`, and an int8 weight."""

    def __init__(self, linear: nn.Linear, as_buffer: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale = nn.Parameter(linear.weight.detach().abs().amax(1, keepdim=True) / 127)
        numbers = (linear.weight.detach() / self.scale.detach()).round().to(torch.int8)
        if as_buffer:
            self.register_buffer("weight", numbers)
        else:
            self.weight = nn.Parameter(numbers, requires_grad=False)
        self.bias = linear.bias

    def dequantised(self) -> Tensor:
        return self.weight.to(self.scale.dtype) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.dequantised().to(x.dtype), self.bias)


def quantised(name: str, as_buffer: bool = False) -> nn.Module:
    """A tiny model whose linear layers, the output layer excepted, hold int8."""
    net = tiny.make(name)
    for path, module in match_modules(net, "all-linear"):
        owner, _, leaf = path.rpartition(".")
        setattr(net.get_submodule(owner), leaf, Int8Linear(module, as_buffer))
    return net


def dequantised(net: nn.Module) -> nn.Module:
    """The same network in float32, with plain linear layers."""
    plain = copy.deepcopy(net)
    for path, module in list(plain.named_modules()):
        if isinstance(module, Int8Linear):
            linear = nn.Linear(module.in_features, module.out_features, module.bias is not None)
            linear.weight.data, linear.bias = module.dequantised().detach(), module.bias
            owner, _, leaf = path.rpartition(".")
            setattr(plain.get_submodule(owner), leaf, linear)
    return plain


@pytest.mark.parametrize("as_buffer", [False, True])
@pytest.mark.parametrize("name", ["mlp", "llama"])
def test_lora_on_int8_layers_is_that_on_their_values(name, as_buffer):
    net = quantised(name, as_buffer)
    plain = dequantised(net)
    spec, same = LoRASpec(net, r=2), LoRASpec(plain, r=2)
    assert spec.modules == same.modules == LoRASpec(tiny.make(name), r=2).modules
    flat = 0.3 * torch.randn(2, spec.numel)
    gradients = []
    for model, own in ((net, spec), (plain, same)):
        leaf = flat.clone().requires_grad_()
        out = tiny.logits(make_target(model, own)(own.from_flat(leaf), tiny.batch(name, 4)))
        gradients.append((out.detach(), *torch.autograd.grad(out.square().sum(), leaf)))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("as_buffer", [False, True])
def test_fingerprints_see_the_whole_numbers(as_buffer):
    net = quantised("mlp", as_buffer)
    other = copy.deepcopy(net)
    assert model_fingerprint(other) == model_fingerprint(net)
    other.fc1.weight.data[0, 0] += 1
    assert model_fingerprint(other) != model_fingerprint(net)
    assert model_fingerprint(net) != model_fingerprint(tiny.make("mlp"))


@pytest.mark.filterwarnings("ignore")  # torch's own quantisation moves to another package
def test_torchs_dynamic_quantisation_is_a_base_too():
    net = tiny.make("mlp")
    small = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    spec = LoRASpec(small, ["fc1", "fc2"], r=2)
    target, x = make_target(small, spec), tiny.batch("mlp", 4)
    assert torch.equal(target(spec.neutral(2), x), small(x))
    a, b = spec.pair(weights := spec.from_flat(torch.randn(2, spec.numel)), "fc1")
    hidden = small.fc1(x) + spec.scaling("fc1") * (x.view(2, 2, -1) @ a.mT @ b.mT).flatten(0, 1)
    seen = []
    small.fc1.register_forward_hook(lambda _, __, out: seen.append(out))
    target(weights, x)
    torch.testing.assert_close(seen[0], hidden, rtol=1e-4, atol=1e-4)
    moved = copy.deepcopy(net)
    moved.fc2.weight.data *= -1
    moved = torch.ao.quantization.quantize_dynamic(moved, {nn.Linear}, dtype=torch.qint8)
    assert model_fingerprint(moved) != model_fingerprint(small)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_adapters_in_float32_learn_on_a_base_in_bfloat16(name):
    net = tiny.make(name).to(torch.bfloat16)
    spec = LoRASpec(net, r=2)
    assert model_fingerprint(net) == model_fingerprint(tiny.make(name))  # one adapter serves both
    target, inputs = make_target(net, spec), tiny.batch(name, 8)
    flat = torch.stack([spec.initial(0), spec.initial(1)]).requires_grad_()
    optimizer = torch.optim.Adam([flat], lr=5e-2)
    losses = []
    for _ in range(20):
        logits = tiny.logits(target(spec.from_flat(flat), inputs))
        assert logits.dtype == torch.bfloat16
        loss = nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), inputs["input_ids"][:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        assert flat.grad.dtype == torch.float32
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05  # its frozen output layer is nearly flat
    assert all(p.grad is None for p in net.parameters())


def test_a_layer_without_sizes_is_named_with_its_type():
    class Packed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    net = tiny.make("mlp")
    net.fc2 = Packed()
    with pytest.raises(SpecError, match="module 'fc2' is a Packed; LoRASpec takes Linear, Conv1D"):
        LoRASpec(net, ["fc1", "fc2"], r=2)
