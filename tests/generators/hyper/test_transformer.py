"""TransformerGenerator: tokens, masks, noise, sharing."""

from __future__ import annotations

import pytest
import tiny
import torch

from hypergen.conditions import Condition, HashingEncoder
from hypergen.errors import SpecError
from hypergen.generators import TransformerGenerator
from hypergen.specs import LoRASpec

SPEC = LoRASpec(tiny.model("llama"), ["q_proj"], r=2)


def drawn(**options) -> TransformerGenerator:
    torch.manual_seed(0)
    base = {"dim": 16, "heads": 2, "init": "forward"}
    return TransformerGenerator(SPEC, HashingEncoder(16), **{**base, **options}).eval()


def test_single_tokens_count():
    """Not the pooled vector alone: with equal means, other tokens give other weights."""
    net = drawn()
    tokens = torch.randn(1, 4, 16)
    swapped = tokens.clone()
    moved = torch.randn(16)
    swapped[0, 0] += moved
    swapped[0, 1] -= moved
    with torch.no_grad():
        a, b = net(Condition.from_tokens(tokens)), net(Condition.from_tokens(swapped))
    assert torch.allclose(tokens.mean(1), swapped.mean(1), atol=1e-6)
    for slot in SPEC:  # B is zero at the start, whatever is read
        assert torch.allclose(a[slot.name], b[slot.name], atol=1e-4) == (slot.role == "lora_B")


def test_what_stands_under_the_mask_does_not_count():
    net = drawn()
    tokens, mask = torch.randn(2, 5, 16), torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    pooled = torch.randn(2, 16)
    noise = tokens.clone()
    noise[1, 2:] = 1e4
    with torch.no_grad():
        a, b = net(Condition(tokens, mask, pooled)), net(Condition(noise, mask, pooled))
    assert torch.equal(a.flat(), b.flat())


def test_noise_is_of_training_alone():
    net, condition = drawn(token_noise=0.5), HashingEncoder(16)(["one two"])
    assert torch.equal(net(condition).flat(), net(condition).flat())
    net.train()
    assert not torch.equal(net(condition).flat(), net(condition).flat())


@pytest.mark.parametrize("option", ["self_attention", "condition_depth"])
def test_parts_can_be_left_out(option):
    with_part, without = drawn(), drawn(**{option: 0})
    count = [sum(p.numel() for p in net.parameters()) for net in (with_part, without)]
    assert count[0] > count[1]
    without(HashingEncoder(16)(["one two"])).check_finite()


def test_the_width_is_a_multiple_of_the_heads():
    with pytest.raises(SpecError, match="dim 16 is not a multiple of the number of heads 3"):
        drawn(heads=3)


def test_sharing_by_group_does_not_grow_with_depth():
    shallow = LoRASpec(tiny.model("llama"), [r"layers.0.self_attn.q_proj"], r=2)
    sizes = [
        sum(
            w.numel()
            for w in TransformerGenerator(s, HashingEncoder(16), 16, share="group").heads.weights
        )
        for s in (shallow, SPEC)
    ]
    assert sizes[0] == sizes[1]
