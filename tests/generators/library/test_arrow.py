"""Arrow routing: the arrows, the logits, and what it is conditioned on."""

from __future__ import annotations

import matrix
import pytest
import tiny
import torch

from hypergen.conditions import HashingEncoder
from hypergen.errors import ConditionError, SpecError
from hypergen.generators import ArrowRouting, Generator
from hypergen.generators.library import ModuleInputs, module_inputs
from hypergen.generators.library.arrow import arrows, input_widths
from hypergen.specs import LoRASpec

LORAS = ["lora", "lora_rank_pattern", "lora_rslora", "lora_llama", "lora_gpt2"]


def experts(spec: LoRASpec, count: int = 3):
    flat = torch.randn(count, spec.numel, generator=torch.Generator().manual_seed(0))
    return spec.from_flat(flat)


def lora(name: str) -> LoRASpec:
    spec = matrix.spec(name)
    assert isinstance(spec, LoRASpec)
    return spec


@pytest.mark.parametrize("name", LORAS)
def test_an_arrow_is_the_top_right_singular_vector_of_the_update(name):
    spec = lora(name)
    weights = experts(spec)
    parts = arrows(weights).split(input_widths(spec), dim=1)
    for module, part in zip(spec.modules, parts, strict=True):
        _, s, vh = torch.linalg.svd(spec.delta(weights, module))
        along = (vh[:, 0] * part).sum(-1).abs()
        assert torch.allclose(along, torch.ones(3), atol=1e-4), module
        gain = (spec.delta(weights, module) @ part[..., None]).norm(dim=(1, 2))
        assert torch.allclose(gain, s[:, 0], rtol=1e-4), module


@pytest.mark.parametrize("name", LORAS)
@pytest.mark.parametrize("mix", ["tensors", "updates"])
def test_an_input_along_one_arrow_gets_that_expert(name, mix):
    spec = lora(name)
    weights = experts(spec)
    net = ArrowRouting.from_weights(weights, top_k=1, mix=mix)
    out = net.generate(module_inputs=-3 * arrows(weights))  # signs do not count
    for module in spec.modules:
        expected = spec.delta(weights, module)
        difference = (spec.delta(out, module) - expected).abs().max()
        assert float(difference) <= 1e-4 * float(expected.abs().max())
    if mix == "tensors":
        assert torch.equal(out.flat(), weights.flat())


def test_each_module_is_routed_by_its_own_input():
    spec = lora("lora")
    weights = experts(spec)
    found = arrows(weights).split(input_widths(spec), dim=1)
    chosen = [i % 3 for i in range(len(found))]
    inputs = torch.cat([part[i] for part, i in zip(found, chosen, strict=True)])[None]
    net = ArrowRouting.from_weights(weights, top_k=1)
    out = net.generate(module_inputs=inputs)
    for module, number in zip(spec.modules, chosen, strict=True):
        for name in spec.pair_names(module):
            assert torch.equal(out[name][0], weights[name][number])


def test_logits_are_means_of_sizes_over_the_tokens():
    spec = lora("lora_alpha")
    weights = experts(spec)
    net = ArrowRouting.from_weights(weights, top_k=None, temperature=2.0)
    tokens = torch.randn(2, 5, net.encoder.dim, generator=torch.Generator().manual_seed(1))
    shares = net.route(net.encode(module_inputs=tokens))
    start = 0
    for number, width in enumerate(input_widths(spec)):
        part = slice(start, start + width)
        logits = (tokens[..., part] @ arrows(weights)[:, part].T).abs().mean(1)
        assert torch.allclose(shares[:, number], (logits / 2).softmax(-1), atol=1e-5)
        start += width
    # Two opposite tokens cancel in a mean hidden state, and not here.
    both = torch.stack([tokens[:, 0], -tokens[:, 0]], dim=1)
    once = net.route(net.encode(module_inputs=tokens[:, 0]))
    assert torch.allclose(net.route(net.encode(module_inputs=both)), once, atol=1e-6)


def test_module_inputs_are_what_the_modules_of_the_base_receive():
    model, spec = tiny.make("mlp"), lora("lora")
    x = tiny.batch("mlp", 4)
    inputs = module_inputs(model, spec, lambda net: net(x))
    first, second, third = inputs.split(input_widths(spec), dim=1)
    assert torch.equal(first, x)
    hidden = torch.relu(model.fc1(x))
    assert torch.allclose(second, hidden)
    assert torch.allclose(third, torch.relu(model.fc2(hidden)))
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ConditionError, match="was not run"):
        module_inputs(model, spec, lambda net: net.fc1(x))


def test_module_inputs_of_a_language_model_are_averaged_over_tokens():
    model, spec = tiny.make("llama"), lora("lora_llama")
    batch = tiny.batch("llama", 2)
    each = module_inputs(model, spec, lambda net: net(**batch), mean=False)
    mean = module_inputs(model, spec, lambda net: net(**batch))
    assert each.dim() == 3
    assert torch.allclose(each.mean(1), mean, atol=1e-5)
    net = ArrowRouting.from_weights(experts(spec), ["a", "b", "c"])
    assert net.library.names == ["a", "b", "c"]
    assert len(net.generate(module_inputs=mean)) == 2


def test_it_is_loaded_as_it_was(tmp_path):
    spec = lora("lora")
    net = ArrowRouting.from_weights(experts(spec), top_k=2)
    net.save_pretrained(tmp_path / "generator")
    loaded = Generator.from_pretrained(tmp_path / "generator")
    assert isinstance(loaded, ArrowRouting)
    assert torch.equal(loaded.arrows, net.arrows)
    inputs = torch.randn(3, net.encoder.dim, generator=torch.Generator().manual_seed(2))
    out = net.generate(module_inputs=inputs)
    assert torch.equal(loaded.generate(module_inputs=inputs).flat(), out.flat())
    for i in range(3):
        alone = net.generate(module_inputs=inputs[i : i + 1])
        assert torch.allclose(alone.flat()[0], out.flat()[i], atol=1e-6)


def test_updates_of_zero_have_no_arrow_and_others_are_refused():
    spec = lora("lora")
    assert not arrows(spec.neutral(2)).any()
    with pytest.raises(SpecError, match="LoRASpec"):
        ArrowRouting.from_weights(matrix.spec("delta").neutral(2))
    with pytest.raises(SpecError, match="embedding"):
        ArrowRouting.from_weights(matrix.spec("lora_embedding").neutral(2))
    with pytest.raises(SpecError, match="ModuleInputs"):
        ArrowRouting(spec, HashingEncoder(16))
    with pytest.raises(ConditionError, match="module inputs have shape"):
        ModuleInputs(4)(torch.zeros(2, 5))
