"""Model cards: what it is, what it was made from, how to load it, its limits."""

from __future__ import annotations

import pytest
import tiny
import torch
import yaml
from peft import IA3Config

from hypergen.specs import DeltaSpec, LoRASpec, PeftSpec
from hypergen.specs.card import adapter_card, merged_card


def named(name="some/llama"):
    model = tiny.make("llama")
    model.config._name_or_path = name
    return model


def weights(model=None, **options):
    spec = LoRASpec(
        named() if model is None else model,
        ["q_proj", "v_proj"],
        **{"r": 4, "task_type": "CAUSAL_LM", **options},
    )
    out = spec.from_flat(spec.initial())
    out.provenance = {"text": "Say yes\nif it is even.", "generator": "TextToLoRA", "steps": 12}
    return out


def front(card):
    return yaml.safe_load(card.split("---")[1])


def test_an_adapter_says_where_it_comes_from_and_how_to_load_it():
    card = adapter_card(weights())
    assert front(card) == {
        "library_name": "peft",
        "base_model": "some/llama",
        "base_model_relation": "adapter",
        "tags": ["hypergen", "lora"],
    }
    for line in (
        "# LoRA adapter generated from a sentence",
        "> Say yes if it is even.",
        "Made by a hypergen generator (`TextToLoRA`) in one forward pass, without training",
        "- rank 4, alpha 8, on 4 modules: `q_proj`, `v_proj`",
        "- steps: 12",
        'base = AutoModelForCausalLM.from_pretrained("some/llama")',
        'model = PeftModel.from_pretrained(base, "path/to/this/folder")',
        "vllm serve some/llama --enable-lora --max-lora-rank 16 --lora-modules task=",
        "How much it gains over the base is not known",
    ):
        assert line in card, line
    assert "--max-lora-rank 32 " in adapter_card(weights(r=24))


def test_gain_and_licence_are_told_where_they_are_known():
    one = weights()
    one.expected_gain = torch.tensor([0.125])
    one.provenance["license"] = "apache-2.0"
    card = adapter_card(one)
    assert front(card)["license"] == "apache-2.0"
    assert "- expected gain over the base: 0.125" in card
    assert "the generator's own estimate" in card


def test_several_sentences_are_all_quoted():
    one = weights()
    one.provenance = {"text": ["a b", "c d"], "mix": [0.5, 0.5]}
    card = adapter_card(one)
    assert "generated from sentences" in card
    assert "> a b\n\n> c d\n" in card
    assert "- mix: [0.5, 0.5]" in card


@pytest.mark.parametrize(
    "options",
    [
        {"model": tiny.model("llama")},  # a base without a name
        {"task_type": None},
        {"rank_pattern": {"model.layers.0.self_attn.q_proj": 2}},
        {"r": 600},
    ],
)
def test_what_vllm_does_not_serve_has_no_command_for_it(options):
    card = adapter_card(weights(**options))
    assert "vllm" not in card
    assert "PeftModel.from_pretrained" in card


def test_other_kinds_have_a_card_too():
    delta = DeltaSpec(named(), "*q_proj*")
    card = adapter_card(delta.from_flat(delta.initial()))
    assert front(card)["library_name"] == "hypergen"
    assert "PeftModel" not in card
    config = IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    ia3 = PeftSpec(named(), config)
    card = adapter_card(ia3.from_flat(ia3.initial()))
    assert "AutoModelForCausalLM.from_pretrained" in card
    assert "vllm" not in card


def test_a_merged_model_is_loaded_by_itself():
    card = merged_card(weights())
    assert front(card)["library_name"] == "transformers"
    assert front(card)["base_model_relation"] == "finetune"
    assert 'AutoModelForCausalLM.from_pretrained("path/to/this/folder")' in card
    assert "> Say yes if it is even." in card
    assert "PeftModel" not in card
