"""Folders of weights: atomic, whole, described."""

from __future__ import annotations

import pytest
import tiny
import torch

from hypergen._utils.io import load_safetensors_metadata
from hypergen.errors import UsageError
from hypergen.specs import FullSpec, LoRASpec, WeightSpec


def lora() -> LoRASpec:
    return LoRASpec(tiny.model("mlp"), ["fc1"], r=2)


def test_a_folder_is_replaced_only_when_asked(tmp_path):
    spec = lora()
    one, two = (spec.from_flat(torch.full((1, spec.numel), v)) for v in (1.0, 2.0))
    one.save_pretrained(tmp_path / "a")
    first = (tmp_path / "a" / "adapter_model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="is not empty"):
        two.save_pretrained(tmp_path / "a", overwrite=False)
    assert (tmp_path / "a" / "adapter_model.safetensors").read_bytes() == first
    two.save_pretrained(tmp_path / "a")
    assert (tmp_path / "a" / "adapter_model.safetensors").read_bytes() != first


def test_the_card_says_what_it_is(tmp_path):
    spec = lora()
    weights = spec.from_flat(spec.initial())
    weights.expected_gain = torch.tensor([0.125])
    weights.provenance = {"text": ["say yes if it is ünlike"]}
    weights.save_pretrained(tmp_path / "a")
    card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert "library_name: peft" in card
    assert "expected gain over the base: 0.125" in card
    assert "ünlike" in card
    assert spec.config["base"]["fingerprint"][:16] in card


def test_the_file_carries_its_spec(tmp_path):
    import json

    spec = lora()
    spec.from_flat(spec.initial()).save_pretrained(tmp_path / "a")
    metadata = load_safetensors_metadata(tmp_path / "a" / "adapter_model.safetensors")
    assert metadata["format"] == "pt"
    assert WeightSpec.from_dict(json.loads(metadata["hypergen.spec"])) == spec


def test_tensors_are_stored_in_the_dtypes_of_the_slots(tmp_path):
    from hypergen._utils.io import load_safetensors

    spec = FullSpec(tiny.make("mlp").to(torch.bfloat16))
    spec.from_flat(spec.initial()).save_pretrained(tmp_path / "a")
    stored = load_safetensors(tmp_path / "a" / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}
