"""Adapters of other PEFT methods, as their tensors stand."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from import_sources import load_adapter, outputs, quiet_peft, reasons, save_adapter
from safetensors.torch import load_file, save_file

from hypergen.specs import PeftSpec
from hypergen.targets import make_target
from hypergen.zoo.importing import import_zoo
from hypergen.zoo.store import Zoo, verify_zoo

FC = {"target_modules": ["fc1", "fc2"]}
PROMPT = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 2}
METHODS = {
    "ia3": ("mlp", "IA3Config", {"feedforward_modules": ["fc2"], **FC}),
    "loha": ("mlp", "LoHaConfig", {"r": 2, **FC}),
    "oft": ("mlp", "OFTConfig", {"r": 0, "oft_block_size": 4, **FC}),
    "ln": ("mlp_norm", "LNTuningConfig", {"target_modules": ["norm"]}),
    "dora": ("mlp", "LoraConfig", {"r": 2, "use_dora": True, **FC}),
    "bias": ("mlp", "LoraConfig", {"r": 2, "bias": "lora_only", **FC}),
    "lora_bias": ("mlp", "LoraConfig", {"r": 2, "lora_bias": True, **FC}),
    "conv": ("conv", "LoraConfig", {"r": 2, "target_modules": ["conv"]}),
    "vera": ("mlp_wide", "VeraConfig", {"r": 2, **FC}),
    "prompt": ("llama", "PromptTuningConfig", PROMPT),
    "prefix": ("llama", "PrefixTuningConfig", PROMPT),
}


def config_of(method: str):
    import peft

    _, name, options = METHODS[method]
    return getattr(peft, name)(**options)


@pytest.mark.parametrize("method", METHODS)
def test_what_the_zoo_exports_runs_as_the_original(tmp_path, method):
    model = METHODS[method][0]
    source = tmp_path / "adapters"
    expected = [
        outputs(save_adapter(source / f"{i}", model, config_of(method), i), model) for i in (0, 1)
    ]
    report = import_zoo(source, tmp_path / "zoo")
    assert reasons(report) == {}
    assert verify_zoo(tmp_path / "zoo") == []
    zoo = Zoo(tmp_path / "zoo")
    assert len(zoo) == 2
    assert zoo.spec.kind == "peft"
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    for i, logits in enumerate(expected):
        zoo.weights([i]).save_pretrained(tmp_path / f"export{i}")
        loaded = outputs(load_adapter(tmp_path / f"export{i}", model), model)
        assert float((loaded - logits).abs().max()) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_slots_fill_the_parameters_that_a_spec_of_the_model_finds(tmp_path, method):
    model = METHODS[method][0]
    save_adapter(tmp_path / "adapter", model, config_of(method))
    import_zoo(tmp_path / "adapter", tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    with quiet_peft():
        own = PeftSpec(tiny.make(model), config_of(method))
        assert {s.name: s.parameter for s in zoo.spec} == {s.name: s.parameter for s in own}
        assert {s.name: s.shape for s in zoo.spec} == {s.name: s.shape for s in own}
        target = make_target(tiny.make(model), zoo.spec)
    assert target.spec == zoo.spec


def test_settings_that_only_concern_training_do_not_count(tmp_path):
    for i, dropout in enumerate((0.0, 0.5)):
        from peft import LoHaConfig

        config = LoHaConfig(r=2, module_dropout=dropout, **FC)
        save_adapter(tmp_path / "adapters" / f"{i}", "mlp", config, i)
    save_adapter(tmp_path / "adapters" / "2", "mlp", LoHaConfig(r=2, alpha=3, **FC), 2)
    report = import_zoo(tmp_path / "adapters", tmp_path / "zoo")
    keys = [entry.architecture for entry in report.of("taken")]
    assert keys == ["loha-mlp", "loha-mlp", "loha-mlp-2"]


def test_modules_saved_whole_belong_to_the_adapter(tmp_path):
    from peft import LoraConfig

    config = LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM"
    )
    expected = outputs(save_adapter(tmp_path / "a", "llama", config), "llama")
    import_zoo(tmp_path / "a", tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    slot = zoo.spec["lm_head.weight"]
    assert slot.parameter == "base_model.model.lm_head.modules_to_save.default.weight"
    zoo.weights([0]).save_pretrained(tmp_path / "out")
    assert torch.allclose(outputs(load_adapter(tmp_path / "out", "llama"), "llama"), expected)


def test_nothing_of_the_config_leads_to_imports(tmp_path):
    save_adapter(tmp_path / "a", "mlp", config_of("ia3"))
    path = tmp_path / "a" / "adapter_config.json"
    hostile = {"parent_library": "antigravity", "base_model_class": "X"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_mapping": hostile}))
    import_zoo(tmp_path / "a", tmp_path / "zoo")
    Zoo(tmp_path / "zoo").weights([0]).save_pretrained(tmp_path / "out")
    assert "antigravity" not in (tmp_path / "out" / "adapter_config.json").read_text()
    assert "antigravity" not in (tmp_path / "zoo" / "zoo.json").read_text()


def test_integers_that_an_export_would_lack_are_a_reason(tmp_path):
    from peft import ShiraConfig

    save_adapter(tmp_path / "adapters" / "a", "mlp", ShiraConfig(r=2, **FC))
    report = import_zoo(tmp_path / "adapters", tmp_path / "zoo")
    (reason,) = reasons(report).values()
    assert "shira_indices" in reason
    assert "an export would lack it" in reason


def test_names_with_and_without_prefix_are_one(tmp_path):
    save_adapter(tmp_path / "adapters" / "a", "mlp", config_of("ia3"))
    save_adapter(tmp_path / "adapters" / "b", "mlp", config_of("ia3"))
    file = tmp_path / "adapters" / "b" / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "fc1.ia3_l": torch.zeros(12, 1)}, file)
    report = import_zoo(tmp_path / "adapters", tmp_path / "zoo")
    assert reasons(report) == {"b": "it holds a tensor twice, with and without PEFT's prefix"}
