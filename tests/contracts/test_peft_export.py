"""Exported folders, read by stock PEFT: the same logits, the same keys, the same bytes."""

from __future__ import annotations

import json
import warnings

import matrix
import pytest
import tiny
import torch
from torch import Tensor, nn

from hypergen._utils.io import load_safetensors
from hypergen.errors import SpecError, WeightsError
from hypergen.specs import LoRASpec, Weights, WeightSpec
from hypergen.targets import make_target

EXPORTED = [name for name in matrix.SPECS if name.startswith(("lora", "prefix", "peft"))]

# What PEFT says while it loads folders that are as its own would be.
ADVICE = {
    "peft_vera": ["Specified to not (save|load) vera_A and vera_B"],
    "peft_randlora": ["Specified to not (save|load) basis_A and basis_B"],
    "peft_ln": ["Unsupported layer type .*LayerNorm"],
}
DEPRECATED = "`is_gradient_checkpointing` is deprecated"  # PEFT's own call of transformers


def from_stock_peft(net: nn.Module, folder, advice: list[str]) -> nn.Module:
    from peft import PeftModel

    with warnings.catch_warnings():
        for message in [*advice, DEPRECATED]:
            warnings.filterwarnings("ignore", message=message)
        return PeftModel.from_pretrained(net, folder).eval()


def run(net: nn.Module, inputs) -> Tensor:
    with torch.no_grad():
        return tiny.logits(net(**inputs) if isinstance(inputs, dict) else net(inputs))


def check_equal(spec_name: str, weights: Weights, folder) -> nn.Module:
    """Both ways of running the first network give one result; returns PEFT's model."""
    row = matrix.SPECS[spec_name]
    inputs = tiny.batch(row.model, 4)
    with torch.no_grad():
        ours = tiny.logits(matrix.target(spec_name)(weights, inputs))
    weights.save_pretrained(folder)
    loaded = from_stock_peft(tiny.make(row.model), folder, ADVICE.get(spec_name, []))
    theirs = run(loaded, inputs)
    assert theirs.shape == ours.shape
    assert float((theirs - ours).abs().max()) < 1e-5
    base = run(tiny.model(row.model), inputs)
    assert float((theirs[:, -base.shape[1] :] - base).abs().max()) > 1e-4  # it does something
    return loaded


@pytest.mark.parametrize("spec_name", EXPORTED)
def test_stock_peft_gives_the_same_logits(spec_name, tmp_path):
    weights = matrix.stepped("mlp", spec_name).generate(matrix.TEXTS)[1]
    assert len(weights) == 1
    check_equal(spec_name, loud(weights), tmp_path / "adapter")


def loud(weights: Weights) -> Weights:
    """The generated weights with every tensor moved by as much again as its own size."""
    spec = weights.spec
    noise = torch.randn(1, spec.numel, generator=torch.Generator().manual_seed(0))
    return spec.from_flat(weights.flat() + 0.3 * noise * spec.per_entry("scale"))


@pytest.mark.parametrize("spec_name", EXPORTED)
def test_the_file_has_exactly_the_keys_that_peft_writes(spec_name, tmp_path):
    from peft import get_peft_model_state_dict

    spec = matrix.spec(spec_name)
    spec.from_flat(spec.initial(0)).save_pretrained(tmp_path / "adapter")
    ours = load_safetensors(tmp_path / "adapter" / "adapter_model.safetensors")
    row = matrix.SPECS[spec_name]
    loaded = from_stock_peft(tiny.make(row.model), tmp_path / "adapter", ADVICE.get(spec_name, []))
    theirs = get_peft_model_state_dict(loaded, save_embedding_layers=False)
    assert {k: tuple(v.shape) for k, v in ours.items()} == {
        k: tuple(v.shape) for k, v in theirs.items()
    }
    for key, value in ours.items():
        assert torch.equal(value, theirs[key].to(value.dtype)), key


@pytest.mark.parametrize("spec_name", [n for n in EXPORTED if n.startswith("lora")])
def test_the_profile_is_portable(spec_name, tmp_path):
    spec = matrix.spec(spec_name)
    spec.from_flat(spec.initial(0)).save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert isinstance(config["target_modules"], list)
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["bias"] == "none"
    assert config["peft_type"] == "LORA"
    assert config.get("modules_to_save") is None
    assert not config.get("use_dora")
    assert config["r"] == spec.config["r"]
    assert config["lora_alpha"] == spec.config["alpha"]
    assert ("rank_pattern" in config) == (spec_name in ("lora_rank_pattern", "lora_rank_nested"))
    front = (tmp_path / "adapter" / "README.md").read_text().splitlines()
    assert front[:2] == ["---", "library_name: peft"]


def test_the_exported_scaling_is_that_of_training(tmp_path):
    """D2L's export was r times too weak: alpha / r of the file against what the target applies."""
    for r, alpha, rslora in [(4, 3.0, False), (4, 3.0, True), (2, 16.0, False), (8, 8.0, True)]:
        net = tiny.make("mlp")
        spec = LoRASpec(net, ["fc1"], r=r, alpha=alpha, use_rslora=rslora)
        weights = spec.from_flat(torch.randn(1, spec.numel))
        weights.save_pretrained(tmp_path / "adapter")
        loaded = from_stock_peft(tiny.make("mlp"), tmp_path / "adapter", [])
        layer = dict(loaded.named_modules())["base_model.model.fc1"]
        assert layer.scaling["default"] == pytest.approx(spec.scaling("fc1"))
        delta = spec.delta(weights, "fc1")[0]
        assert torch.allclose(layer.get_delta_weight("default"), delta, atol=1e-6)


def test_a_module_whose_path_ends_like_another_is_adapted_alone(tmp_path):
    """`fc` is also the end of `block.fc`: a list would select both."""
    net = tiny.make("nested")
    spec = LoRASpec(net, "fc", r=2)
    assert spec.modules == ("fc",)
    weights = spec.from_flat(torch.randn(1, spec.numel))
    weights.save_pretrained(tmp_path / "adapter")
    inputs = tiny.batch("nested", 4)
    ours = make_target(net, spec)(weights, inputs)
    loaded = from_stock_peft(tiny.make("nested"), tmp_path / "adapter", [])
    assert torch.allclose(run(loaded, inputs), ours, atol=1e-5)
    adapted = [n for n, m in loaded.named_modules() if hasattr(m, "lora_A")]
    assert adapted == ["base_model.model.fc"]


def test_several_networks_become_several_folders(tmp_path):
    weights = matrix.stepped("mlp", "lora").generate(matrix.TEXTS)
    folders = weights.save_pretrained(tmp_path / "adapters")
    assert [f.name for f in folders] == ["0000", "0001", "0002"]
    inputs = tiny.batch("mlp", 6)
    ours = matrix.target("lora")(weights, inputs)
    theirs = torch.cat(
        [
            run(from_stock_peft(tiny.make("mlp"), f, []), inputs[2 * i : 2 * i + 2])
            for i, f in enumerate(folders)
        ]
    )
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("spec_name", ["full_mlp", "delta", "adapter"])
def test_other_kinds_never_use_the_file_names_of_peft(spec_name, tmp_path):
    weights = matrix.stepped("mlp", spec_name).generate("x")
    weights.save_pretrained(tmp_path / "out")
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert len(names) == 3
    assert not any(name.startswith("adapter") for name in names)
    (file,) = (tmp_path / "out").glob("*.safetensors")
    (config,) = (tmp_path / "out").glob("*.json")
    spec = WeightSpec.from_dict(json.loads(config.read_text()))
    assert torch.equal(spec.from_named(load_safetensors(file)).flat(), weights.flat())


def test_nan_is_not_exported(tmp_path):
    spec = matrix.spec("lora")
    flat = spec.initial(0)
    flat[-1] = float("nan")
    with pytest.raises(WeightsError, match=f"slot '{spec.names[-1]}' contains NaN"):
        spec.from_flat(flat).save_pretrained(tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_a_generic_spec_has_no_folder(tmp_path):
    spec = WeightSpec(matrix.spec("lora").slots)
    with pytest.raises(SpecError, match=r"use Weights\.save"):
        spec.from_flat(spec.initial(0)).save_pretrained(tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_adapters_of_another_base_are_refused():
    other = tiny.make("mlp", seed=1)
    with pytest.raises(WeightsError, match="another base model than this MLP"):
        make_target(other, matrix.spec("lora"))
    with pytest.raises(WeightsError, match="another base model"):
        matrix.target("lora")(
            LoRASpec(other, "all-linear", r=2).from_flat(torch.zeros(matrix.spec("lora").numel)),
            tiny.batch("mlp", 2),
        )
