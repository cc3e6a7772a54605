"""Exported folders: equal outputs through stock PEFT, and the way back."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from hypergen._utils.io import load_safetensors, save_safetensors
from hypergen.errors import RunError, WeightsError
from hypergen.serving import check_export, load_adapter, portable_profile
from hypergen.specs import LoRASpec, PeftSpec
from hypergen.targets import LoRATarget, PeftTarget


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embed = nn.Embedding(11, 6)
            self.first = nn.Linear(6, 8)
            self.second = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(self.embed(tokens))))


TOKENS = torch.arange(8).view(2, 4)


def draw(spec, count=1, seed=0):
    random = torch.Generator().manual_seed(seed)
    return spec.from_flat(0.3 * torch.randn(count, spec.numel, generator=random))


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def spec(net):
    return LoRASpec(net, ["first", "second"], r=2, alpha=6)


@pytest.fixture
def folder(spec, tmp_path):
    draw(spec).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


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
    "options",
    [
        {"target_modules": ["first", "second"], "r": 2, "alpha": 6},
        {"target_modules": ["embed", "second"], "r": 3},
        {"target_modules": ["first", "second"], "r": 4, "use_rslora": True},
        {"target_modules": ["first", "second"], "r": 2, "rank_pattern": {"second": 1}},
    ],
)
def test_stock_peft_computes_the_same(net, tmp_path, options):
    spec = LoRASpec(net, **options)
    weights, target = draw(spec), LoRATarget(net, spec)
    weights.save_pretrained(tmp_path / "a")
    before = {name: p.clone() for name, p in net.named_parameters()}
    assert check_export(weights, target, tmp_path / "a", TOKENS) <= 1e-5
    assert (target(weights, TOKENS) - target.base(TOKENS)).abs().max() > 1e-2
    after = dict(net.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert type(net.second) is nn.Linear


def test_another_adapter_or_scaling_is_found_out(net, spec, folder):
    target = LoRATarget(net, spec)
    with pytest.raises(WeightsError, match="outputs through stock PEFT differ"):
        check_export(draw(spec, seed=1), target, folder, TOKENS)
    change(folder, lora_alpha=3)
    with pytest.raises(WeightsError, match="outputs through stock PEFT differ"):
        check_export(draw(spec), target, folder, TOKENS)
    assert check_export(draw(spec), target, folder, TOKENS, atol=10) > 1e-3
    with pytest.raises(WeightsError, match="compares one network with its folder, not 2"):
        check_export(draw(spec, 2), target, folder, TOKENS)


def test_what_peft_passes_over_in_silence_is_an_error(net, spec, folder):
    target = LoRATarget(net, spec)
    name = "base_model.model.first.lora_B.weight"
    retensor(folder, lambda t: t.update({name.replace("first", "frist"): t.pop(name)}))
    with pytest.raises(WeightsError, match=rf"lacks '{name}', which stock PEFT expects"):
        check_export(draw(spec), target, folder, TOKENS)
    retensor(folder, lambda t: t.update({name: torch.zeros(8, 2)}))
    with pytest.raises(WeightsError, match=r"holds .*frist.*, which stock PEFT ignores"):
        check_export(draw(spec), target, folder, TOKENS)


def test_a_folder_that_does_not_fit_or_is_damaged_is_told(net, spec, folder):
    target = LoRATarget(net, spec)
    change(folder, target_modules=["nothing"])
    with pytest.raises(WeightsError, match="stock PEFT cannot load"):
        check_export(draw(spec), target, folder, TOKENS)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(RunError, match=r"adapter_config\.json is not valid JSON"):
        check_export(draw(spec), target, folder, TOKENS)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(RunError, match=r"adapter_config\.json does not exist"):
        portable_profile(folder)


def test_other_peft_methods_are_checked_too(net, tmp_path):
    from peft import IA3Config

    spec = PeftSpec(net, IA3Config(target_modules=["first", "second"], feedforward_modules=[]))
    weights = draw(spec)
    weights.save_pretrained(tmp_path / "a")
    assert check_export(weights, PeftTarget(net, spec), tmp_path / "a", TOKENS) <= 1e-5
    assert portable_profile(tmp_path / "a") == ["peft_type is 'IA3': servers take LORA"]


def test_our_folder_is_read_back_exactly(spec, folder):
    assert torch.equal(load_adapter(folder, spec).flat(), draw(spec).flat())


@pytest.mark.parametrize(
    "options",
    [
        {"r": 2, "lora_alpha": 6, "target_modules": ["first", "second"]},
        {"r": 2, "lora_alpha": 4, "target_modules": ["embed", "first"]},
        {"r": 4, "lora_alpha": 8, "target_modules": ["first", "second"], "use_rslora": True},
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["first", "second"],
            "rank_pattern": {"second": 2},
        },
    ],
)
def test_a_folder_of_stock_peft_computes_the_same_here(tmp_path, options):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    stock = get_peft_model(Net(), LoraConfig(**options, init_lora_weights=False)).eval()
    stock.save_pretrained(tmp_path / "stock")
    net = Net()
    spec = LoRASpec(
        net,
        options["target_modules"],
        r=options["r"],
        alpha=options["lora_alpha"],
        rank_pattern=options.get("rank_pattern"),
        use_rslora=options.get("use_rslora", False),
    )
    weights = load_adapter(tmp_path / "stock", spec)
    with torch.no_grad():
        difference = LoRATarget(net, spec)(weights, TOKENS) - stock(TOKENS)
    assert float(difference.abs().max()) <= 1e-5


def test_an_adapter_for_another_base_is_refused(spec, folder):
    other = LoRASpec(Net(seed=1), ["first", "second"], r=2, alpha=6)
    theirs, ours = (s.config["base"]["fingerprint"][:12] for s in (spec, other))
    message = rf"another base model: Net \(fingerprint {theirs}\), not Net \(fingerprint {ours}\)"
    with pytest.raises(WeightsError, match=message):
        load_adapter(folder, other)


def test_another_base_by_name_is_refused(net, spec, folder):
    retensor(folder, lambda t: None)  # as stock PEFT writes it: without a fingerprint
    change(folder, base_model_name_or_path="some/model")
    named = LoRASpec.from_dict(
        {
            **spec.to_dict(),
            "config": {**spec.config, "base": {**spec.config["base"], "name": "our/model"}},
        }
    )
    with pytest.raises(WeightsError, match=r"another base model: some/model, not our/model \("):
        load_adapter(folder, named)
    assert len(load_adapter(folder, spec)) == 1  # nothing known against it


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', not 'LORA'"),
        ({"use_dora": True}, "use_dora is True; only plain LoRA can be read"),
        ({"bias": "all"}, "bias is 'all'; only plain LoRA"),
        ({"modules_to_save": ["second"]}, "modules_to_save is .*; only plain LoRA"),
        ({"r": 3}, "module 'first' has rank 3, the spec 2"),
        ({"lora_alpha": 2}, "module 'first' is scaled by 1, in the spec by 3"),
        ({"use_rslora": True}, "another alpha"),
        ({"alpha_pattern": {"second": 1}}, "module 'second' is scaled by 0.5"),
        ({"r": None}, "is damaged: its r, lora_alpha or patterns"),
    ],
)
def test_settings_that_change_the_function_are_refused(spec, folder, keys, message):
    change(folder, **keys)
    with pytest.raises(WeightsError, match=message):
        load_adapter(folder, spec)


def test_tensors_must_fit_the_slots(spec, folder):
    name = "base_model.model.first.lora_B.weight"
    retensor(folder, lambda t: t.update({name: torch.zeros(9, 2)}))
    with pytest.raises(WeightsError, match=r"slot 'first\.lora_B\.weight' has shape \(9, 2\)"):
        load_adapter(folder, spec)
    retensor(folder, lambda t: t.update({name: torch.full((8, 2), torch.nan)}))
    with pytest.raises(WeightsError, match=r"'first\.lora_B\.weight' contains NaN"):
        load_adapter(folder, spec)
    retensor(folder, lambda t: t.pop(name))
    with pytest.raises(WeightsError, match=r"slot 'first\.lora_B\.weight' is missing"):
        load_adapter(folder, spec)
    retensor(folder, lambda t: t.update({"base_model.model.fist.lora_B.weight": torch.zeros(1)}))
    with pytest.raises(WeightsError, match=r"fits no slot\. Did you mean"):
        load_adapter(folder, spec)
