"""Text-to-LoRA: entities in the saved order, three sizes."""

from __future__ import annotations

import json

import pytest
import tiny
import torch

from hypergen.conditions import HashingEncoder
from hypergen.errors import SpecError
from hypergen.generators import TextToLoRA
from hypergen.specs import LoRASpec, WeightSpec

SPEC = LoRASpec(tiny.model("llama"), ["q_proj", "v_proj"], r=3)


def drawn(size: str, spec: WeightSpec = SPEC, **options) -> TextToLoRA:
    torch.manual_seed(0)
    return TextToLoRA(spec, HashingEncoder(16), size, hidden=16, depth=1, **options).eval()


@pytest.mark.parametrize(
    ("size", "entities"),
    [("L", 4), ("M", 8), ("S", 8 * 3)],  # modules; modules × {A, B}; … × ranks
)
def test_what_the_trunk_runs_over(size, entities):
    net = drawn(size)
    assert len(net.layers_index) == entities
    assert sorted(set(net.layers_index.tolist())) == [0, 1]
    assert sorted(set(net.kinds_index.tolist())) == [0, 1]
    assert len(net.entity_index) == (24 if size == "S" else 8)


def test_larger_sizes_have_larger_heads():
    counts = [sum(p.numel() for p in drawn(size).head) for size in "SML"]
    assert counts[0] < counts[1] < counts[2]


def test_a_and_b_of_a_module_share_one_feature_in_l_alone():
    for size, shared in (("L", True), ("M", False)):
        net = drawn(size)
        a, b = (SPEC.names.index(f"model.layers.1.self_attn.q_proj.lora_{x}.weight") for x in "AB")
        assert (net.entity_index[a] == net.entity_index[b]) == shared


@pytest.mark.parametrize("size", ["L", "M", "S"])
def test_the_order_is_that_of_the_saved_spec(size):
    """T2L took it from a set: another process read other indices for the same checkpoint."""
    again = WeightSpec.from_dict(json.loads(json.dumps(SPEC.to_dict())))
    one, two = drawn(size), drawn(size, again)
    for name in ("layers_index", "kinds_index", "parts_index", "entity_index"):
        assert torch.equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("size", ["M", "S"])
@pytest.mark.parametrize("init", ["forward", "hyperfan_in"])
def test_one_head_for_all_keeps_silent_slots_silent_and_lets_them_learn(size, init):
    net = drawn(size, init=init)
    weights = net(HashingEncoder(16)(["a b"]))
    for slot in SPEC:
        assert bool((weights[slot.name] == 0).all()) == (slot.role == "lora_B")
    sum(weights[s.name].sum() for s in SPEC if s.role == "lora_B").backward()
    assert bool((net.gate.grad != 0).any())


@pytest.mark.parametrize("size", ["L", "M", "S"])
def test_slots_are_start_plus_scaled_products(size):
    net = drawn(size, init="forward", most_rows=2)  # 3 ranks in 2 tokens: the last is half empty
    net.offset.data.normal_()
    if size != "L":
        net.gate.data.uniform_(1, 2)
    changed = [torch.randn_like(p) for p in net.head]
    condition = HashingEncoder(16)(["a b", "c"])
    first = net(condition)
    for weight, change in zip(net.head, changed, strict=True):
        weight.data += change
    second = net(condition)
    for weight in net.head:
        weight.data.zero_()
    start = net(condition)
    for weight, change in zip(net.head, changed, strict=True):
        weight.data += change
    third = net(condition)
    expected = SPEC.from_flat(net.offset[None])
    for name in SPEC.names:
        assert torch.equal(start[name], expected[name].expand_as(start[name]))
        assert bool((third[name] != start[name]).all())
        torch.testing.assert_close(second[name] - first[name], third[name] - start[name])


def test_unknown_sizes_are_told():
    with pytest.raises(SpecError, match="size 'XL' is not one of L, M, S"):
        drawn("XL")
