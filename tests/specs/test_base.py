"""WeightSpec: order, groups, packing, validation, JSON."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen.errors import SpecError, WeightsError
from hypergen.specs import AdapterSpec, DeltaSpec, FullSpec, LoRASpec, PrefixSpec, Slot, WeightSpec

DTYPES = ["float16", "bfloat16", "float32", "float64"]
ROLES = ["weight", "bias", "lora_A", "lora_B", "other"]


@st.composite
def specs(draw):
    shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
    kinds = draw(
        st.lists(
            st.tuples(
                shapes, st.sampled_from(ROLES), st.sampled_from(DTYPES), st.sampled_from([0.0, 0.5])
            ),
            min_size=1,
            max_size=8,
        )
    )
    return WeightSpec(
        Slot(f"s{i}", shape, role, dtype, std=std)
        for i, (shape, role, dtype, std) in enumerate(kinds)
    )


def tensors_for(spec: WeightSpec, batch: int | None, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lead = () if batch is None else (batch,)
    return {
        slot.name: torch.randn((*lead, *slot.shape), generator=generator, dtype=torch.float64).to(
            getattr(torch, slot.dtype)
        )
        for slot in spec
    }


@settings(deadline=None, max_examples=60)
@given(specs(), st.sampled_from([None, 1, 3]))
def test_pack_and_unpack_are_inverse_to_the_bit(spec, batch):
    tensors = tensors_for(spec, batch)
    flat = spec.pack(tensors)
    assert flat.shape == ((spec.numel,) if batch is None else (batch, spec.numel))
    assert flat.dtype == spec.dtype
    back = spec.unpack(flat)
    assert list(back) == list(spec.names)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        assert torch.equal(back[name], tensor)
    assert torch.equal(spec.pack(back), flat)


@settings(deadline=None, max_examples=60)
@given(specs())
def test_groups_are_views_of_the_flat_vector_in_order(spec):
    flat = torch.arange(2 * spec.numel).view(2, -1).to(torch.float64)
    groups = spec.split(flat)
    assert torch.equal(torch.cat([g.flatten(1) for g in groups], 1), flat)
    assert all(g.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr() for g in groups)
    keys = [spec.slots[g.start].group_key for g in spec.groups]
    assert len(set(keys)) == len(keys)  # one group a key
    weights = spec.from_flat(flat)
    offset = 0
    for slot in spec:
        part = flat[:, offset : offset + slot.numel].view(2, *slot.shape)
        assert torch.equal(weights[slot.name], part)
        offset += slot.numel


@settings(deadline=None, max_examples=60)
@given(specs())
def test_json_round_trip(spec):
    again = WeightSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.fingerprint == spec.fingerprint
    assert again.names == spec.names
    assert again.groups == spec.groups


def all_kinds():
    mlp, llama = tiny.model("mlp"), tiny.model("llama")
    return [
        LoRASpec(mlp, "all-linear", r=2, rank_pattern={"fc2": 3}),
        FullSpec(mlp),
        DeltaSpec(mlp, ["fc*"]),
        AdapterSpec(mlp, ["fc1", "out"]),
        PrefixSpec(llama),
    ]


def test_every_kind_is_rebuilt_from_json_without_the_model():
    for spec in all_kinds():
        again = WeightSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert type(again) is type(spec)
        assert again == spec
        assert torch.equal(again.initial(3), spec.initial(3))
        assert getattr(again, "modules", None) == getattr(spec, "modules", None)
    assert len({spec.fingerprint for spec in all_kinds()}) == 5


def test_specs_that_differ_in_one_setting_are_unequal():
    mlp = tiny.model("mlp")
    one, other = LoRASpec(mlp, ["fc1"], r=2, alpha=4), LoRASpec(mlp, ["fc1"], r=2, alpha=8)
    assert one.slots == other.slots
    assert one != other
    assert one != "spec"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"format_version": 0}, "format version 0"),
        (
            {"format_version": 1, "kind": "loar"},
            "kind of spec 'loar'.* Did you mean 'lora'",
        ),
    ],
)
def test_unknown_json_is_told(data, message):
    with pytest.raises(SpecError, match=message):
        WeightSpec.from_dict(data)


def test_names_are_unique_and_there_is_one():
    slot = Slot("a", (1,), "bias")
    with pytest.raises(SpecError, match="'a' is given twice"):
        WeightSpec([slot, slot])
    with pytest.raises(SpecError, match="at least one slot"):
        WeightSpec([])


def test_unknown_slots_point_to_the_right_one():
    spec = LoRASpec(tiny.model("mlp"), ["fc1"], r=2)
    with pytest.raises(SpecError, match=r"no slot 'fc1\.lora_a\.weight'.* 'fc1\.lora_A\.weight'"):
        spec["fc1.lora_a.weight"]
    assert "fc1.lora_A.weight" in spec
    assert spec["fc1.lora_A.weight"].shape == (2, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("s1"), "slot 's1' is missing"),
        (lambda t: t.update(s3=torch.zeros(1)), "unexpected tensor 's3'"),
        (lambda t: t.update(s1=torch.zeros(2, 5)), r"'s1' has shape \(2, 5\), expected \(2, 3\)"),
        (lambda t: t.update(s1=torch.zeros(2, 3, dtype=torch.int32)), "'s1' is torch.int32"),
        (lambda t: t["s1"].fill_(float("nan")), "'s1' contains NaN"),
        (lambda t: t["s2"].fill_(float("-inf")), "'s2' contains NaN"),
    ],
)
def test_wrong_tensors_name_the_slot(change, message):
    spec = WeightSpec([Slot(f"s{i}", (3,), "bias") for i in range(3)])
    tensors = tensors_for(spec, 2)
    change(tensors)
    with pytest.raises(WeightsError, match=message):
        spec.from_named(tensors)


def test_a_flat_vector_of_another_length_is_told():
    spec = WeightSpec([Slot("a", (3,), "bias")])
    with pytest.raises(WeightsError, match=r"\[3\] or \[B, 3\], not \[4\]"):
        spec.unpack(torch.zeros(4))
    with pytest.raises(WeightsError, match=r"not \[1, 2, 3\]"):
        spec.from_flat(torch.zeros(1, 2, 3))


def test_starting_values_do_not_depend_on_the_other_slots():
    a, b = Slot("a", (40, 50), "weight", std=0.3, mean=1.0), Slot("b", (7,), "bias")
    one, two = WeightSpec([a]), WeightSpec([b, a])
    assert torch.equal(one.initial(5), two.unpack(two.initial(5))["a"].flatten())
    assert not torch.equal(one.initial(5), one.initial(6))
    assert float(one.initial(0).std()) == pytest.approx(0.3, rel=0.1)
    assert float(one.initial(0).mean()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(two.unpack(two.initial(0))["b"], torch.zeros(7))
