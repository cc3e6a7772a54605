"""LoRAs of every rank and scaling in one zoo, exported to what they were."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from import_sources import load_adapter, outputs, reasons, save_adapter
from safetensors.torch import load_file, save_file

from hypergen.specs import LoRASpec
from hypergen.targets import make_target
from hypergen.zoo.importing import import_zoo, rank_mask
from hypergen.zoo.store import Zoo, verify_zoo

# Mixed ranks across adapters and modules, alphas, rsLoRA.
VARIANTS = [
    {"r": 2, "lora_alpha": 3},
    {"r": 4, "lora_alpha": 8, "rank_pattern": {"{0}": 3}, "alpha_pattern": {"{0}": 5}},
    {"r": 3, "lora_alpha": 7, "use_rslora": True, "rank_pattern": {".*{1}": 1}},
    {"r": 1, "lora_alpha": 16, "use_rslora": True},
]
MODELS = {
    "gpt2": (["c_attn", "c_fc", "wte"], {"fan_in_fan_out": True, "task_type": "CAUSAL_LM"}),
    "llama": (["q_proj", "v_proj", "down_proj"], {"task_type": "CAUSAL_LM"}),
    "tagger": (["embed", "fc1"], {}),
}


def lora(model: str, variant: dict):
    from peft import LoraConfig

    names, options = MODELS[model]
    patterns = {
        key: {pattern.format(*names): n for pattern, n in value.items()}
        for key, value in variant.items()
        if isinstance(value, dict)
    }
    return LoraConfig(target_modules=names, **{**options, **variant, **patterns})


@pytest.fixture
def source(tmp_path):
    return tmp_path / "adapters"


def edit(folder, **changes) -> None:
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))


@pytest.mark.parametrize("model", MODELS)
def test_what_the_zoo_exports_runs_as_the_original(tmp_path, source, model):
    expected = [
        outputs(save_adapter(source / f"{i}", model, lora(model, variant), i), model)
        for i, variant in enumerate(VARIANTS)
    ]
    report = import_zoo(source, tmp_path / "zoo")
    assert report.counts["taken"] == 4
    assert reasons(report) == {}
    assert verify_zoo(tmp_path / "zoo") == []
    zoo = Zoo(tmp_path / "zoo")
    spec = zoo.spec
    assert isinstance(spec, LoRASpec)
    assert {spec.rank(path) for path in spec.modules} == {4}
    assert {spec.scaling(path) for path in spec.modules} == {1.0}
    # As the specs of that model: one order, one kind of each module.
    names, options = MODELS[model]
    own = LoRASpec(tiny.model(model), names, r=4, alpha=4, task_type=options.get("task_type"))
    assert set(spec.slots) == set(own.slots)
    assert spec.config["modules"] == own.config["modules"]
    base = outputs(tiny.model(model), model)
    for i, logits in enumerate(expected):
        zoo.weights([i]).save_pretrained(tmp_path / f"export{i}")
        loaded = outputs(load_adapter(tmp_path / f"export{i}", model), model)
        assert float((loaded - logits).abs().max()) < 1e-5
        assert float((loaded - base).abs().max()) > 1e-2
        mask = rank_mask(spec, zoo.rows[i].ranks)
        flat = zoo.flat([i])[0]
        assert not flat[~mask].any()
        assert (flat[mask] != 0).all()
    assert zoo.rows[0].ranks == dict.fromkeys(spec.modules, 2)
    assert sorted(set(zoo.rows[1].ranks.values())) == [3, 4]


def test_rows_run_on_a_target_without_an_export(tmp_path, source):
    expected = [
        outputs(save_adapter(source / f"{i}", "tagger", lora("tagger", v), i), "tagger")
        for i, v in enumerate(VARIANTS)
    ]
    import_zoo(source, tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    target = make_target(tiny.make("tagger"), zoo.spec)
    with torch.no_grad():
        out = target(zoo.weights(), tiny.batch("tagger", 4).repeat(4, 1))
    assert torch.allclose(out, torch.cat(expected), atol=1e-5)


def test_the_row_says_what_the_adapter_was(tmp_path, source):
    save_adapter(source / "run/checkpoint-20", "tagger", lora("tagger", VARIANTS[0]))
    import_zoo(source, tmp_path / "zoo")
    row = Zoo(tmp_path / "zoo").rows[0]
    assert (row.run, row.step, row.parent) == ("run", 20, "org/tagger")
    assert row.hyperparameters["r"] == 2
    assert row.hyperparameters["lora_alpha"] == 3
    assert row.metadata["source"] == "run/checkpoint-20/adapter_model.safetensors"
    assert len(row.metadata["source_sha256"]) == 64


def test_other_modules_bases_and_task_types_are_other_architectures(tmp_path, source):
    from peft import LoraConfig

    for i, names in enumerate((["fc1"], ["fc1", "fc2"], ["fc2", "fc1"])):
        save_adapter(source / f"{i}", "mlp", LoraConfig(target_modules=names, r=2), i)
    for name in ("3", "4"):
        save_adapter(source / name, "mlp", LoraConfig(target_modules=["fc1"], r=2), int(name))
    edit(source / "3", base_model_name_or_path="org/other")
    edit(source / "4", task_type="FEATURE_EXTRACTION")
    report = import_zoo(source, tmp_path / "zoo")
    keys = [entry.architecture for entry in report.of("taken")]
    assert keys == ["lora-mlp", "lora-mlp-2", "lora-mlp-2", "lora-other", "lora-mlp-3"]


def test_a_later_import_uses_the_architecture_if_its_rank_is_large_enough(tmp_path, source):
    for i, rank in enumerate((4, 2, 6)):
        variant = {"r": rank, "lora_alpha": 5}
        save_adapter(source / f"{i}", "tagger", lora("tagger", variant), i)
    for i, key in enumerate(("lora-tagger", "lora-tagger", "lora-tagger-2")):
        report = import_zoo(source / f"{i}", tmp_path / "zoo")
        assert [entry.architecture for entry in report.of("taken")] == [key]
    assert import_zoo(source, tmp_path / "zoo").counts["known"] == 3
    zoo = Zoo(tmp_path / "zoo")
    assert [len(zoo.select(architecture=key)) for key in zoo.architectures] == [2, 1]


@pytest.mark.parametrize(("alpha", "dtype"), [(4, "bfloat16"), (3, "float32")])
def test_half_precision_is_kept_where_the_scaling_is_exact(tmp_path, source, alpha, dtype):
    save_adapter(source / "a", "tagger", lora("tagger", {"r": 2, "lora_alpha": alpha}))
    file = source / "a" / "adapter_model.safetensors"
    halves = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(halves, file)
    import_zoo(source, tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    assert {slot.dtype for slot in zoo.spec} == {dtype}
    b = halves["base_model.model.fc1.lora_B.weight"].float() * alpha / 2
    assert torch.equal(zoo.slot("fc1.lora_B.weight").float()[0], b)


def test_the_adapters_own_target_list_is_exported_and_else_an_exact_pattern(tmp_path, source):
    from peft import LoraConfig

    configs = (["q_proj"], r".*\.0\..*\.q_proj")
    for name, targets in zip("ab", configs, strict=True):
        save_adapter(source / name, "llama", LoraConfig(target_modules=targets, r=2))
    import_zoo(source, tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    listed, exact = (zoo[[i]].spec.config["target_modules"] for i in range(2))
    assert listed == ["q_proj"]
    assert exact == r"model\.layers\.0\.self_attn\.q_proj"


def test_the_bases_own_embedding_is_left_out_and_listed(tmp_path, source):
    from peft import LoraConfig

    config = LoraConfig(target_modules=["embed_tokens"], r=2, task_type="CAUSAL_LM")
    expected = outputs(save_adapter(source, "llama", config), "llama")
    report = import_zoo(source, tmp_path / "zoo")
    (entry,) = report.of("taken")
    assert "embed_tokens.base_layer.weight" in entry.left_out[0]
    Zoo(tmp_path / "zoo").weights([0]).save_pretrained(tmp_path / "out")
    assert torch.allclose(outputs(load_adapter(tmp_path / "out", "llama"), "llama"), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 3}, "has rank 2 in the file and 3 in adapter_config.json"),
        ({"lora_alpha": "x"}, "'x' is no lora_alpha"),
        ({"alpha_pattern": {"(a+)+": 1}}, "too involved"),
        ({"alpha_pattern": {"(": 1}}, "the pattern '('"),
        ({"rank_pattern": [1]}, "rank_pattern is no object"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' changes the base"),
        ({"layer_replication": [[0, 1]]}, "layer_replication changes the base"),
        ({"megatron_config": {"a": 1}}, "megatron_config changes the base"),
        ({"peft_type": "../x"}, "names no peft_type"),
        ({"lora_alpha": float("nan")}, "adapter_config.json cannot be used"),
        ({"task_type": "\ud800"}, "adapter_config.json cannot be used"),
        ({"modules_to_save": 3}, "modules_to_save is no list"),
        ({"peft_type": "absent"}, "names no peft_type: this is no adapter of PEFT"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path is no text"),
    ],
)
def test_a_config_that_cannot_be_kept_is_a_reason(tmp_path, source, change, message):
    save_adapter(source / "bad", "tagger", lora("tagger", {"r": 2}))
    save_adapter(source / "good", "tagger", lora("tagger", {"r": 2}), seed=1)
    edit(source / "bad", **change)
    report = import_zoo(source, tmp_path / "zoo")
    assert report.counts["taken"] == 1
    (reason,) = reasons(report).values()
    assert message in reason


def test_paths_that_end_alike_stay_apart(tmp_path, source):
    """A module `b` beside a module `x.b` that is not adapted but holds one that is."""
    tensors = {}
    for path in ("b", "x.b.c", "x.b.c.d"):
        tensors[f"base_model.model.{path}.lora_A.weight"] = torch.randn(2, 3)
        tensors[f"base_model.model.{path}.lora_B.weight"] = torch.randn(4, 2)
    source.mkdir()
    save_file(tensors, source / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["b", "c", "d"]}
    (source / "adapter_config.json").write_text(json.dumps(config))
    import_zoo(source, tmp_path / "zoo")
    spec = Zoo(tmp_path / "zoo").spec
    assert isinstance(spec, LoRASpec)
    assert spec.modules == ("b", "x.b.c", "x.b.c.d")


def test_half_a_pair_and_uneven_pairs_are_reasons(tmp_path, source):
    for name in ("half", "uneven", "path"):
        save_adapter(source / name, "tagger", lora("tagger", {"r": 2}))
        file = source / name / "adapter_model.safetensors"
        tensors = load_file(file)
        key = "base_model.model.fc1.lora_B.weight"
        if name == "half":
            del tensors[key]
        elif name == "uneven":
            tensors[key] = torch.zeros(6, 3)
        else:
            tensors = {n.replace("fc1", "forward"): t for n, t in tensors.items()}
        save_file(tensors, file)
    report = import_zoo(source, tmp_path / "zoo")
    assert reasons(report) == {
        "half": "module 'fc1' has only one of A and B",
        "uneven": "module 'fc1' has an A of rank 2 and a B of rank 3",
        "path": "'forward' cannot be the path of a module",
    }
    assert not (tmp_path / "zoo").exists()


def test_equal_numbers_of_another_scaling_are_another_adapter(tmp_path, source):
    for name in ("a", "b", "c"):
        save_adapter(source / name, "tagger", lora("tagger", {"r": 2, "lora_alpha": 2}))
    edit(source / "b", lora_alpha=4)
    report = import_zoo(source, tmp_path / "zoo")
    assert [entry.path for entry in report.of("taken")] == ["a", "b"]
    assert reasons(report) == {"c": "a duplicate: it has the numbers of a"}
    zoo = Zoo(tmp_path / "zoo")
    b = zoo.slot("fc1.lora_B.weight")
    assert torch.equal(b[1], 2 * b[0])
