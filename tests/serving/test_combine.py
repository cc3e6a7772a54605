"""Combined adapters: exact sums through stock PEFT, merges equal to PEFT's own."""

from __future__ import annotations

import argparse

import peft
import pytest
import torch
from generating import build
from torch import Tensor, nn

import hypergen
from hypergen.cli import main
from hypergen.errors import RunError, UsageError, WeightsError
from hypergen.serving.adapters import read_adapters
from hypergen.serving.combine import METHODS, add_options, combine, combine_command
from hypergen.specs import DeltaSpec, LoRASpec, Weights
from hypergen.specs.peft import structural_copy


def lora(seed: int, model: nn.Module | None = None, **options) -> Weights:
    spec = LoRASpec(model or build(), ["0", "2"], **{"r": 2, **options})
    return spec.from_flat(torch.randn(1, spec.numel, generator=torch.Generator().manual_seed(seed)))


def updates(weights: Weights) -> dict[str, Tensor]:
    spec = weights.spec
    assert isinstance(spec, LoRASpec)
    return {path: spec.delta(weights, path)[0] for path in spec.modules}


def through_peft(folder, x: Tensor) -> Tensor:
    with torch.no_grad():
        return peft.PeftModel.from_pretrained(structural_copy(build()), str(folder)).eval()(x)


def by_hand(x: Tensor, *terms: tuple[float, Weights]) -> Tensor:
    model = build()
    with torch.no_grad():
        for factor, weights in terms:
            for path, update in updates(weights).items():
                model.get_submodule(path).weight += factor * update
        return model(x)


@pytest.mark.parametrize(
    ("options", "factors"),
    [
        ({}, (1, 1, 1)),
        ({"weights": [1, -1, 0]}, (1, -1, 0)),
        ({"weights": [0.5, -2, 0.25]}, (0.5, -2, 0.25)),
        ({"method": "average"}, (1 / 3, 1 / 3, 1 / 3)),
        ({"method": "average", "weights": [1, 2, 1]}, (0.25, 0.5, 0.25)),
        ({"method": "svd", "rank": 6}, (1, 1, 1)),  # as high as any update here: exact
    ],
)
def test_sums_of_updates_are_exact_through_stock_peft(options, factors, tmp_path):
    parts = [lora(0), lora(1, r=3, alpha=5), lora(2, r=4, alpha=1, use_rslora=True)]
    x = torch.randn(7, 6)
    combine(parts, **options).save_pretrained(tmp_path / "out")
    expected = by_hand(x, *zip(factors, parts, strict=True))
    assert torch.allclose(through_peft(tmp_path / "out", x), expected, atol=1e-4)


def test_one_adapter_is_negated_and_scaled():
    one = lora(0)
    for factor in (-1.0, 0.5):
        for path, update in updates(combine([one], [factor])).items():
            assert torch.allclose(update, factor * updates(one)[path], atol=1e-6)


def test_a_rank_takes_the_best_approximation():
    parts = [lora(0), lora(1)]
    cut = combine(parts, rank=1)
    assert cut.spec.config["r"] == 1
    for path, update in updates(cut).items():
        whole = sum(updates(p)[path] for p in parts)
        u, s, vh = torch.linalg.svd(whole)
        assert torch.allclose(update, s[0] * u[:, :1] @ vh[:1], atol=1e-4)


def stock(folder, **adapters: peft.LoraConfig) -> peft.PeftModel:
    """Adapters trained elsewhere: stock PEFT's own files."""
    names = list(adapters)
    model = peft.get_peft_model(build(), adapters[names[0]], names[0])
    for name in names[1:]:
        model.add_adapter(name, adapters[name])
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draw))
    model.save_pretrained(str(folder), selected_adapters=names)
    return model


def config(r: int = 4, alpha: int = 6, **more) -> peft.LoraConfig:
    return peft.LoraConfig(r=r, lora_alpha=alpha, target_modules=["0", "2"], **more)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"add", "average"}))
@pytest.mark.parametrize("weights", [[0.7, 0.4], [1.0, -0.5]])
def test_merges_are_those_of_peft(method, weights, tmp_path, monkeypatch):
    model = stock(tmp_path, one=config(alpha_pattern={"2": 3}), two=config(alpha=5))
    inject = model.base_model.inject_adapter

    def seeded(*args, **kwargs):
        inject(*args, **kwargs)
        torch.manual_seed(3)  # what DARE drops is drawn after the new adapter's own start

    monkeypatch.setattr(model.base_model, "inject_adapter", seeded)
    rank = 2 if method.endswith("svd") else None
    model.add_weighted_adapter(
        ["one", "two"], weights, "both", combination_type=method, density=0.5, svd_rank=rank
    )
    # Adapters of one name lie in folders of that name.
    made = combine([tmp_path / "one", tmp_path / "two"], weights, method=method, rank=rank, seed=3)
    for path, update in updates(made).items():
        layer = model.base_model.model.get_submodule(path)
        a, b = layer.lora_A["both"].weight, layer.lora_B["both"].weight
        theirs = (layer.scaling["both"] * b @ a).detach()
        assert torch.allclose(update, theirs, atol=2e-5), path
        if not method.endswith("svd"):
            assert torch.allclose(made[f"{path}.lora_A.weight"][0], a, atol=1e-6)


def test_stock_adapters_of_other_settings_are_added_exactly(tmp_path):
    model = stock(
        tmp_path,
        one=config(rank_pattern={"2": 1}, alpha_pattern={"2": 3}),
        two=config(r=2, alpha=5, use_rslora=True),
    )
    made = combine([tmp_path / "one", tmp_path / "two"], [2, -1])
    for path, update in updates(made).items():
        layer = model.base_model.model.get_submodule(path)
        expected = 2 * layer.get_delta_weight("one") - layer.get_delta_weight("two")
        assert torch.allclose(update, expected, atol=1e-5)


def test_dare_leaves_torchs_stream_alone_and_repeats():
    parts, state = [lora(0), lora(1)], torch.random.get_rng_state()
    first = combine(parts, method="dare_ties", seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.flat(), combine(parts, method="dare_ties", seed=1).flat())
    assert not torch.equal(first.flat(), combine(parts, method="dare_ties", seed=2).flat())


def test_generated_stored_and_trained_adapters_go_together(tmp_path):
    """A folder of several, a file of Weights, a stock folder, and weights at hand."""
    spec = lora(0).spec
    pair = spec.from_flat(torch.randn(2, spec.numel))
    (tmp_path / "many").mkdir()
    pair.save_pretrained(tmp_path / "many")
    (tmp_path / "many/index.json").write_text('{"0000": "a", "0001": "b"}')
    pair.save(tmp_path / "two.safetensors")
    stock(tmp_path / "stock", one=config())
    sources = [tmp_path / "many", tmp_path / "two.safetensors", tmp_path / "stock/one", lora(5)]
    made = combine(sources, [1, 2, 3, 4, 5, 6])
    own = updates(made)
    for path in own:
        trained = updates(combine([tmp_path / "stock/one"]))[path]
        parts = [updates(pair[0])[path], updates(pair[1])[path]]
        expected = 4 * parts[0] + 6 * parts[1] + 5 * trained + 6 * updates(lora(5))[path]
        assert torch.allclose(own[path], expected, atol=1e-4)
    assert made.spec.config["base"] == spec.config["base"]  # what one of them knows
    assert made.provenance["combined"]["weights"] == [1, 2, 3, 4, 5, 6]


def test_bases_and_modules_that_do_not_fit_are_named(tmp_path):
    torch.manual_seed(7)
    other = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    lora(0).save_pretrained(tmp_path / "a")
    lora(1, other).save_pretrained(tmp_path / "b")
    with pytest.raises(WeightsError, match=r"/a and .*/b are adapters for different base models"):
        combine([tmp_path / "a", tmp_path / "b"])
    spec = LoRASpec(build(), ["0"], r=2)
    spec.from_flat(torch.randn(1, spec.numel)).save_pretrained(tmp_path / "c")
    with pytest.raises(WeightsError, match=r"/a adapts module '2', which .*/c does not"):
        combine([tmp_path / "c", tmp_path / "a"])
    with pytest.raises(WeightsError, match=r"rank 2 in .*/a and 3 in adapter 1: ties adds factors"):
        combine([tmp_path / "a", lora(0, r=3)], method="ties")


def test_bad_options_are_told(tmp_path):
    parts = [lora(0), lora(1)]
    for options, message in (
        ({"method": "tie"}, "unknown method 'tie'.*ties"),
        ({"weights": [1]}, "1 weights for 2 adapters"),
        ({"weights": [1, float("nan")]}, "must be finite"),
        ({"method": "average", "weights": [1, -1]}, "must not sum to zero"),
        ({"method": "ties", "density": 0}, "density is 0"),
        ({"method": "ties", "rank": 2}, "leave rank out, or use ties_svd"),
        ({"method": "ties", "sign": "x"}, "sign is 'x'"),
        ({"rank": 0}, "rank is 0"),
    ):
        with pytest.raises(UsageError, match=message):
            combine(parts, **options)
    with pytest.raises(UsageError, match="no adapters"):
        combine([])
    with pytest.raises(RunError, match="does not exist"):
        combine([tmp_path / "none"])
    spec = DeltaSpec(build())
    with pytest.raises(WeightsError, match="adapter 0 is a 'delta', not a LoRA"):
        combine([spec.from_flat(torch.zeros(1, spec.numel))])
    stock(tmp_path, dora=config(use_dora=True))
    with pytest.raises(WeightsError, match="use_dora is True; only plain LoRA"):
        read_adapters(tmp_path / "dora")


def test_the_command_writes_what_the_function_makes(tmp_path, capsys):
    for i in (0, 1):
        lora(i).save_pretrained(tmp_path / str(i))
    out = tmp_path / "out"
    words = [str(tmp_path / "0"), str(tmp_path / "1"), "--weights", "1", "-0.5", "--out", str(out)]
    assert main(["combine", *words]) == 0
    assert "add of 1 × " in capsys.readouterr().out
    x = torch.randn(4, 6)
    expected = by_hand(x, (1, lora(0)), (-0.5, lora(1)))
    assert torch.allclose(through_peft(out, x), expected, atol=1e-4)
    card = (out / "README.md").read_text()
    assert "combined from 2 adapters" in card
    assert "one forward pass" not in card
    parser = argparse.ArgumentParser()
    add_options(parser)
    args = parser.parse_args([*words, "--method", "ties", "--density", "0.5"])
    args.json = "-"
    result = combine_command(args)  # over its own earlier result
    assert (result["method"], result["density"], result["rank"]) == ("ties", 0.5, 2)
    assert main(["combine", *words, "--method", "nope"]) == 2


def test_it_is_public():
    assert hypergen.combine is combine
