"""`hypergen generate --mix` and `--merge`: one adapter of several sentences, and whole models."""

from __future__ import annotations

import json

import pytest
import torch
from generating import build, options, scrambled

from hypergen._utils.io import load_safetensors
from hypergen.errors import UsageError, WeightsError
from hypergen.serving import check_export, generate_command, load_adapter
from hypergen.specs import AdapterSpec, LoRASpec, WeightSpec
from hypergen.targets import LoRATarget


def updates(spec, folder):
    """The update of each module of an adapter folder, by stock PEFT's rules."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_safetensors(folder / "adapter_model.safetensors")
    names = {m: [f"base_model.model.{n}" for n in spec.pair_names(m)] for m in spec.modules}
    scaling = config["lora_alpha"] / config["r"]
    return {m: scaling * tensors[b] @ tensors[a] for m, (a, b) in names.items()}


@pytest.mark.parametrize("mix", [[0.7, -0.3], []])
def test_a_mix_is_one_portable_adapter_with_the_sum_of_the_updates(run, tmp_path, mix):
    texts = ["is it even", "is it odd"]
    found = generate_command(options(run, tmp_path / "mix", text=texts, mix=mix))
    assert found["out"] == [str(tmp_path / "mix")]
    assert found["portable"] == []
    assert found["expected_gain"] is None
    generate_command(options(run, tmp_path / "each", text=texts))
    spec = LoRASpec(build(), ["0", "2"], r=2)
    one, two = (updates(spec, tmp_path / "each" / name) for name in ("0000", "0001"))
    mixed = updates(spec, tmp_path / "mix")
    first, second = mix or [0.5, 0.5]
    for module in spec.modules:
        expected = first * one[module] + second * two[module]
        assert torch.allclose(mixed[module], expected, atol=1e-6)
        assert expected.abs().max() > 1e-4
    card = (tmp_path / "mix" / "README.md").read_text()
    assert "> is it even" in card
    assert "> is it odd" in card
    model, spec = build(), WeightSpec.from_dict(found["spec"])
    weights = load_adapter(tmp_path / "mix", spec)
    target = LoRATarget(model, spec)
    assert check_export(weights, target, tmp_path / "mix", torch.randn(5, 6)) <= 1e-5


def test_each_draw_is_mixed_with_its_own_kind(run, tmp_path):
    texts = ["is it even", "is it odd", "is it 3"]
    found = generate_command(options(run, tmp_path / "a", text=texts, mix=[1, 2, 0.5], n=2))
    assert len(found["out"]) == 2
    index = json.loads((tmp_path / "a" / "index.json").read_text())
    assert index["0001"] == "1 × is it even + 2 × is it odd + 0.5 × is it 3"
    name = "adapter_model.safetensors"
    assert found["sha256"][f"0000/{name}"] == found["sha256"][f"0001/{name}"]  # deterministic


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"text": "a", "mix": []}, "--mix needs two descriptions or more"),
        ({"document": __file__, "mix": [1.0]}, "--mix needs two descriptions or more"),
        ({"text": ["a", "b"], "mix": [1.0]}, "--mix has 1 weights for 2 descriptions"),
        ({"text": "a", "base": "somewhere"}, "--base names the model for --merge: give both"),
        ({"text": "a", "merge": True}, r"records no name of its base \(Sequential\): .* --base"),
    ],
)
def test_options_that_do_not_go_together_write_nothing(run, tmp_path, more, message):
    with pytest.raises(UsageError, match=message):
        generate_command(options(run, tmp_path / "out", **more))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def llama_run(tmp_path):
    """A generator for a tiny language model that is known by name, and that model's folder."""
    model = tiny_llama()
    model.save_pretrained(tmp_path / "base")
    model.config._name_or_path = "some/llama"
    generator = scrambled(LoRASpec(model, ["q_proj", "up_proj"], r=2, task_type="CAUSAL_LM"))
    generator.save_pretrained(tmp_path / "run" / "generator")
    return tmp_path / "run"


def tiny_llama(seed=0):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=19,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def test_merging_writes_a_whole_model_with_the_same_logits(llama_run, tmp_path):
    from transformers import AutoModelForCausalLM

    asked = []

    def load_base(name, recorded):
        asked.append((name, recorded))
        return tiny_llama(), None

    out = tmp_path / "merged"
    args = options(llama_run, out, text="is it even", merge=True, load_base=load_base)
    found = generate_command(args)
    assert asked == [("some/llama", True)]
    assert found["portable"] is None
    assert {"config.json", "model.safetensors", "README.md", "hypergen.json"} <= set(
        found["sha256"]
    )
    generate_command(options(llama_run, tmp_path / "adapter", text="is it even"))
    model, tokens = tiny_llama(), torch.arange(6)[None]
    spec = WeightSpec.from_dict(found["spec"])
    merged = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = LoRATarget(model, spec)(load_adapter(tmp_path / "adapter", spec), tokens).logits
        assert torch.allclose(merged(tokens).logits, expected, atol=1e-5)
        assert (expected - model(tokens).logits).abs().max() > 1e-4
    card = (out / "README.md").read_text()
    assert "base_model: some/llama" in card
    assert "> is it even" in card
    generate_command(args)  # its own folder is replaced
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds .*; choose another folder"):
        generate_command(args)
    with pytest.raises(UsageError, match=r"holds .*; choose another folder"):
        generate_command(options(llama_run, tmp_path / "base", text="is it even"))


def test_merging_into_another_base_names_both(llama_run, tmp_path):
    args = options(llama_run, tmp_path / "merged", text="is it even", merge=True, base="mine")
    args.load_base = lambda name, recorded: (tiny_llama(seed=1), None)
    with pytest.raises(WeightsError, match=r"another base model .*LlamaForCausalLM.*some/llama"):
        generate_command(args)
    assert not (tmp_path / "merged").exists()


def test_weights_that_cannot_be_merged_are_told_before_the_base_is_loaded(tmp_path):
    scrambled(AdapterSpec(build(), ["0"])).save_pretrained(tmp_path / "run" / "generator")
    args = options(tmp_path / "run", tmp_path / "out", text="a", merge=True, base="b")
    with pytest.raises(WeightsError, match="AdapterSpec cannot be merged into its base"):
        generate_command(args)
