"""Slots: checked fields and their JSON."""

from __future__ import annotations

import json

import pytest

from hypergen.errors import SpecError
from hypergen.specs import Slot, WeightSpec


def test_a_slot_survives_json():
    slot = Slot("a.b", (2, 3), "lora_A", "bfloat16", "a.p", "a", 3, 3, 2, ("c", "d"), 0.5, 0.1, 2.0)
    assert Slot.from_dict(json.loads(json.dumps(slot.to_dict()))) == slot
    assert slot.numel == 6


def test_the_parameter_is_the_name_unless_given():
    assert Slot("a.weight", (1,), "bias").parameter == "a.weight"
    assert Slot("a", (), "other").numel == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "non-empty name"),
        ({"shape": (2, 0)}, r"'s' has an empty shape \(2, 0\)"),
        ({"role": "wieght"}, "'s' has an unknown role 'wieght'"),
        ({"dtype": "int8"}, "'s' has dtype 'int8'"),
        ({"std": -1.0}, "'s' needs std >= 0"),
        ({"std": float("nan")}, "'s' needs std >= 0"),
        ({"scale": 0.0}, "'s' needs std >= 0, scale > 0"),
        ({"mean": float("inf")}, "'s' needs"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(SpecError, match=message):
        Slot(**{"name": "s", "shape": (2,), "role": "bias", **fields})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shap": (1,)}, "'s' is malformed: unknown field 'shap'"),
        ({"shape": ...}, "'s' is malformed: no field 'shape'"),
    ],
)
def test_malformed_json_is_named(change, message):
    data = {**Slot("s", (2,), "bias").to_dict(), **change}
    with pytest.raises(SpecError, match=message):
        Slot.from_dict({k: v for k, v in data.items() if v is not ...})


def test_slots_that_start_constant_are_not_grouped_with_random_ones():
    spec = WeightSpec(
        [
            Slot("a", (2, 2), "lora_B", std=0.0),
            Slot("b", (2, 2), "lora_B", std=1.0),
            Slot("c", (2, 2), "lora_B", std=0.0),
        ]
    )
    assert [len(group) for group in spec.groups] == [2, 1]
    assert spec.names == ("a", "c", "b")
