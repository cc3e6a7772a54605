"""Queries that carry the frozen weight of their module."""

from __future__ import annotations

import pytest
import tiny
import torch

from hypergen.conditions import BaseWeightsEncoder, FusedEncoder, HashingEncoder, WithBaseWeights
from hypergen.errors import SpecError
from hypergen.generators import Generator, PromptToEffect, SharedPlusDelta
from hypergen.specs import LoRASpec

SPEC = LoRASpec(tiny.model("llama"), ["q_proj", "v_proj", "down_proj"], r=2)
OPTIONS = {"dim": 16, "depth": 1, "heads": 2, "share": "group", "init": "forward"}
TEXTS = ["say yes if even", "no"]


def base(seed: int = 0, paths=SPEC.modules) -> BaseWeightsEncoder:
    return BaseWeightsEncoder.from_model(tiny.make("llama", seed), paths, sketch=3)


def drawn(encoder=None) -> PromptToEffect:
    torch.manual_seed(0)
    encoder = encoder or WithBaseWeights(HashingEncoder(16), base())
    return PromptToEffect(SPEC, encoder, **OPTIONS).eval()


def test_each_query_reads_the_token_of_its_own_module():
    net = drawn()
    before = net.queries()
    module = SPEC.modules[2]
    with torch.no_grad():
        net.encoder.base.tokens[SPEC.modules.index(module)] += torch.randn(net.encoder.base.dim)
    changed = (net.queries() - before).abs().amax(1) > 0
    for query, slot in enumerate(net.query_index[:, 0].tolist()):
        assert bool(changed[query]) == (SPEC.slots[slot].module == module)


def test_another_base_gets_other_weights_from_the_same_generator():
    net = drawn()
    with torch.no_grad():
        before = net(net.encoder(TEXTS))
        net.encoder.base.tokens.copy_(base(seed=1).tokens)
        after = net(net.encoder(TEXTS))
    for slot in SPEC:
        if slot.role == "lora_A":  # B starts at zero
            assert not torch.equal(before[slot.name], after[slot.name]), slot.name


def test_gradients_reach_the_projection_and_the_tokens_stay():
    net = drawn()
    tokens = net.encoder.base.tokens.clone()
    net(net.encoder(TEXTS)).flat().square().sum().backward()
    assert bool((net.base_input[1].weight.grad != 0).any())
    assert torch.equal(net.encoder.base.tokens, tokens)


def test_a_fused_encoder_puts_them_into_the_condition_too(tmp_path):
    torch.manual_seed(0)
    net = drawn(FusedEncoder({"text": HashingEncoder(16), "base": base()}, dim=12))
    loaded = Generator.from_pretrained(net.save_pretrained(tmp_path / "g"))
    assert torch.equal(loaded.generate(TEXTS).flat(), net.generate(TEXTS).flat())
    assert torch.equal(loaded.queries(), net.queries())


def test_it_makes_the_delta_of_a_shared_adapter(tmp_path):
    encoder = WithBaseWeights(HashingEncoder(16), base())
    net = SharedPlusDelta(SPEC, encoder, "PromptToEffect", OPTIONS, combine="ranks")
    loaded = Generator.from_pretrained(net.save_pretrained(tmp_path / "g"))
    assert torch.equal(loaded.generate(TEXTS).flat(), net.generate(TEXTS).flat())


def test_missing_base_weights_are_told():
    with pytest.raises(SpecError, match="wrap the encoder in WithBaseWeights"):
        drawn(HashingEncoder(16))
    some = [module for module in SPEC.modules if "down_proj" not in module]
    with pytest.raises(SpecError, match=r"slot '.*down_proj.lora_.*has not read"):
        drawn(WithBaseWeights(HashingEncoder(16), base(paths=some)))
