"""The portable profile: what hypergen writes is served, and each obstacle is named."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from hypergen._utils.io import load_safetensors, save_safetensors
from hypergen.errors import RunError
from hypergen.serving import portable_profile
from hypergen.specs import LoRASpec

A = "base_model.model.first.lora_A.weight"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 3)


def export(folder, *modules, **options):
    spec = LoRASpec(Net(), list(modules) or ["first", "second"], **{"r": 2, **options})
    spec.from_flat(spec.initial()).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    return export(tmp_path / "a")


def change(folder, **keys):
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text()), **keys}
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))


def retensor(folder, edit):
    path = folder / "adapter_model.safetensors"
    tensors = load_safetensors(path)
    edit(tensors)
    save_safetensors(path, tensors)


@pytest.mark.parametrize(
    ("modules", "options"),
    [
        ([], {}),
        ([], {"alpha": 5.5}),
        ([], {"use_rslora": True}),  # vLLM scales by alpha / sqrt(r) then, as PEFT does
        (["embed", "first"], {}),
        ([], {"r": 16}),
    ],
)
def test_what_hypergen_writes_by_default_is_portable(tmp_path, modules, options):
    assert portable_profile(export(tmp_path / "a", *modules, **options)) == []


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"r": "absent"}, "r is missing: servers read the rank from it"),
        ({"lora_alpha": "absent"}, "lora_alpha is missing: vLLM requires it"),
        ({"lora_alpha": "16"}, "lora_alpha is '16', not a number"),
        ({"target_modules": "absent"}, "target_modules is missing: vLLM requires it"),
        ({"target_modules": "all-linear"}, "target_modules is not a list of names"),
        ({"bias": "all"}, "bias is 'all': vLLM rejects trained biases"),
        ({"use_dora": True}, "use_dora is set: vLLM rejects DoRA"),
        ({"modules_to_save": ["second"]}, "modules_to_save is set: vLLM rejects whole modules"),
        ({"alpha_pattern": {"first": 1}}, "alpha_pattern is set: vLLM applies one r and alpha"),
        ({"rank_pattern": {"first": 2}}, "rank_pattern is set: vLLM applies one r and alpha"),
        ({"lora_bias": True}, "lora_bias is set: vLLM rejects tensors other than A and B"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is set: vLLM rejects tensors"),
        ({"target_parameters": ["x"]}, "target_parameters is set: vLLM adapts modules"),
        ({"layer_replication": [[0, 1]]}, "layer_replication is set: vLLM serves the layers"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is set: vLLM applies the"),
        ({"use_qalora": True}, "use_qalora is set: vLLM applies A to the input itself"),
        ({"use_bdlora": True}, "use_bdlora is set: vLLM takes A and B as whole matrices"),
        ({"arrow_config": {"top_k": 1}}, "arrow_config is set: vLLM routes between no adapters"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa': that changes the base's"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3': servers take LORA"),
    ],
)
def test_each_setting_that_is_not_served_is_named(folder, keys, problem):
    change(folder, **keys)
    (found,) = portable_profile(folder)
    assert found.startswith(problem)


def test_harmless_settings_are_passed_over(folder):
    change(folder, init_lora_weights="gaussian", modules_to_save=None, layers_to_transform=None)
    change(folder, lora_dropout=0.1, rank_pattern={}, use_dora=False, bias="none", unknown=1)
    assert portable_profile(folder) == []


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        (17, "r is 17: start vLLM with --max-lora-rank 32 or more (its default is 16)"),
        (32, "r is 32: start vLLM with --max-lora-rank 32 or more (its default is 16)"),
        (300, "r is 300: start vLLM with --max-lora-rank 320 or more (its default is 16)"),
        (513, "r is 513: vLLM takes ranks from 1 to 512"),
    ],
)
def test_ranks_above_the_default_name_the_option_that_vllm_takes(tmp_path, rank, message):
    assert portable_profile(export(tmp_path / "a", "first", r=rank)) == [message]


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda t: t.pop(A), "module 'first' has no A"),
        (lambda t: t.update({"x": torch.zeros(1)}), "tensor 'x' is neither A nor B of a module"),
        (
            lambda t: t.update({"base_model.model.first.lora_B.bias": torch.zeros(8)}),
            "tensor 'base_model.model.first.lora_B.bias' is neither A nor B",
        ),
        (
            lambda t: t.update({A.removesuffix(".weight"): t.pop(A)}),
            "tensor 'base_model.model.first.lora_A' is neither A nor B",
        ),
        (
            lambda t: t.update({A.removeprefix("base_model.model."): t.pop(A)}),
            "tensor 'first.lora_A.weight' does not begin with 'base_model.model.'",
        ),
        (lambda t: t.update({A: torch.zeros(3, 6)}), f"tensor '{A}' has rank 3, not r = 2"),
    ],
)
def test_tensors_that_are_not_served_are_named(folder, edit, problem):
    retensor(folder, edit)
    found = portable_profile(folder)
    assert found[0].startswith(problem)


def test_modules_that_peft_would_leave_out_are_named(folder):
    change(folder, target_modules=["second"])
    (found,) = portable_profile(folder)
    assert found == "module 'first' is not in target_modules: stock PEFT leaves it out"


def test_a_folder_without_adapter_is_told(folder):
    (folder / "adapter_config.json").unlink()
    with pytest.raises(RunError, match=r"adapter_config\.json does not exist"):
        portable_profile(folder)
