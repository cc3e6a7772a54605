"""Matching modules as PEFT does, and telling base models apart."""

from __future__ import annotations

import pytest
import tiny
import torch

from hypergen.errors import SpecError
from hypergen.specs import match_modules, model_fingerprint

RULES = [
    ("llama", ["q_proj", "v_proj"]),
    ("llama", ["layers.1.self_attn.q_proj"]),
    ("llama", ["model.layers.0.mlp.up_proj", "o_proj"]),
    ("llama", r".*\.layers\.1\..*(q|k)_proj"),
    ("llama", r".*layers.*proj"),
    ("llama", "all-linear"),
    ("gpt2", ["c_attn"]),
    ("gpt2", ["attn.c_proj"]),
    ("gpt2", "all-linear"),
    ("nested", ["fc"]),
    ("nested", "fc"),
    ("nested", ["block.fc"]),
]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize(("name", "target"), RULES)
def test_the_rule_is_that_of_peft(name, target):
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(tiny.make(name), LoraConfig(target_modules=target, r=2))
    theirs = [
        path.removeprefix("base_model.model.")
        for path, module in wrapped.named_modules()
        if hasattr(module, "lora_A")
    ]
    assert [path for path, _ in match_modules(tiny.model(name), target)] == theirs


def test_all_linear_takes_plain_models_too():
    found = [path for path, _ in match_modules(tiny.model("mlp_norm"), "all-linear")]
    assert found == ["fc1", "fc2", "out"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (["q_porj"], r"'q_porj' is not in the model\. Did you mean 'q_proj'"),
        (["q_proj", "xyz"], "'xyz' is not in the model"),
        (["proj"], "'proj' is not in the model"),  # no dot boundary before it
        ("q_proj", "no module of LlamaForCausalLM matches 'q_proj'"),
        ([], "no module of LlamaForCausalLM matches"),
    ],
)
def test_nothing_matching_is_an_error(target, message):
    with pytest.raises(SpecError, match=message):
        match_modules(tiny.model("llama"), target)


def test_the_fingerprint_is_of_values_names_and_shapes():
    one = model_fingerprint(tiny.make("mlp"))
    assert model_fingerprint(tiny.make("mlp")) == one
    assert model_fingerprint(tiny.make("mlp", seed=1)) != one
    changed = tiny.make("mlp")
    with torch.no_grad():
        changed.fc2.weight[3, 3] += 1
    assert model_fingerprint(changed) != one
    renamed = tiny.make("mlp")
    renamed.fc3 = renamed.fc2
    del renamed.fc2
    assert model_fingerprint(renamed) != one


def test_the_fingerprint_ignores_what_does_not_matter():
    net = tiny.make("mlp")
    one = model_fingerprint(net)
    assert model_fingerprint(net.to(torch.bfloat16)) == one
    assert model_fingerprint(net.requires_grad_(False).train()) == one
