"""Zhyper: shared A and B, a generated Z between them."""

from __future__ import annotations

import matrix
import pytest
import tiny
import torch

from hypergen.conditions import HashingEncoder
from hypergen.errors import SpecError
from hypergen.generators import Generator, ZhyperGenerator
from hypergen.specs import LoRASpec

SPEC = LoRASpec(
    tiny.model("llama"), "all-linear", r=3, rank_pattern={"model.layers.1.mlp.up_proj": 2}
)
TEXTS = ["say yes if even", "no", "three of five"]


def drawn(spec=SPEC, **options) -> ZhyperGenerator:
    torch.manual_seed(0)
    return ZhyperGenerator(spec, HashingEncoder(16), hidden=16, depth=1, **options).eval()


def moved(**options) -> ZhyperGenerator:
    """Every parameter off its start, so that no factor is zero."""
    net = drawn(**options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize("mix", ["diag", "full"])
def test_each_update_is_b_z_a_of_its_own_module(mix):
    net, condition = moved(mix=mix), HashingEncoder(16)(TEXTS)
    with torch.no_grad():
        weights, z, shared = net(condition), net.mixers(condition), net.shared_weights()
    order = [slot.module for slot in SPEC if slot.role == "lora_B"]
    for module in SPEC.modules:
        a, b = SPEC.pair(shared, module)
        own = z[:, order.index(module)]
        own = torch.diag_embed(own) if mix == "diag" else own
        own = own[:, : SPEC.rank(module), : SPEC.rank(module)]
        expected = SPEC.scaling(module) * (b @ own @ a)
        assert torch.allclose(SPEC.delta(weights, module), expected, atol=1e-6), module


@pytest.mark.parametrize("mix", ["diag", "full"])
def test_the_identity_is_the_shared_adapter(mix):
    net = moved(mix=mix, start="shared")
    with torch.no_grad():
        net.head.zero_()
        weights = net(HashingEncoder(16)(TEXTS))
        assert torch.equal(weights.flat(), net.shared_weights(3).flat())
    assert not torch.equal(weights.flat(), SPEC.initial(0).expand(3, -1))


@pytest.mark.parametrize("mix", ["diag", "full"])
@pytest.mark.parametrize("start", ["shared", "zero"])
@pytest.mark.parametrize("spec_name", ["lora_gpt2", "lora_embedding"])
def test_the_first_step_starts_at_zero_and_finds_a_gradient(mix, start, spec_name):
    spec, target = matrix.spec(spec_name), matrix.target(spec_name)
    net, condition = drawn(spec, mix=mix, start=start), HashingEncoder(16)(TEXTS)
    weights = net(condition)
    for module in spec.modules:
        assert bool((spec.delta(weights, module) == 0).all())
    inputs = tiny.batch(matrix.SPECS[spec_name].model, 3)
    tiny.logits(target(weights, inputs)).square().sum().backward()
    # One of the two factors of the product learns first, the rest from the second step on.
    learns = {"zero": [net.head], "shared": net.factors}[start]
    found = [bool((p.grad != 0).any()) for p in learns]
    roles = [group.role for group in spec.groups]
    assert found == ([True] if start == "zero" else [role == "lora_B" for role in roles])
    other = matrix.step(net)
    assert bool((spec.delta(other(condition), spec.modules[0]) != 0).any())
    other.zero_grad()
    tiny.logits(target(other(condition), inputs)).square().sum().backward()
    assert all(bool((p.grad != 0).any()) for p in net.parameters())


def test_only_b_differs_between_conditions_and_nothing_between_batches():
    net, encoder = moved(mix="full"), HashingEncoder(16)
    with torch.no_grad():
        weights = net(encoder(TEXTS))
        alone = net(encoder(TEXTS[1:2]))
    for slot in SPEC:
        first, second, _ = weights[slot.name]
        assert torch.equal(first, second) == (slot.role == "lora_A"), slot.name
        assert torch.allclose(weights[slot.name][1], alone[slot.name][0], rtol=1e-5, atol=1e-5)


def test_the_head_has_as_many_outputs_as_z_has_numbers():
    assert drawn(mix="diag").head.shape == (16, 3)
    assert drawn(mix="full").head.shape == (16, 3, 3)


@pytest.mark.parametrize("start", ["shared", "zero"])
def test_it_is_loaded_as_it_was(start, tmp_path):
    net = moved(mix="full", start=start)
    loaded = Generator.from_pretrained(net.save_pretrained(tmp_path / "g"))
    assert torch.equal(loaded.generate(TEXTS).flat(), net.generate(TEXTS).flat())
    assert torch.equal(loaded.shared_weights().flat(), net.shared_weights().flat())


@pytest.mark.parametrize(
    ("spec_name", "slot"),
    [
        ("full_mlp", "fc1.weight"),
        ("peft_dora", "fc1.lora_magnitude_vector"),
        ("peft_ia3", "fc1.ia3_l"),
        ("adapter", "fc1"),
    ],
)
def test_other_specs_are_refused_by_slot(spec_name, slot):
    with pytest.raises(SpecError, match=f"slot '{slot}.*not half of a LoRA pair"):
        drawn(matrix.spec(spec_name))


def test_unknown_options_are_told():
    with pytest.raises(SpecError, match="mix 'square' is neither diag nor full"):
        drawn(mix="square")
    with pytest.raises(SpecError, match="start 'one' is neither shared nor zero"):
        drawn(start="one")
