"""Merging: a copy of the base computes what base and adapter compute, and its files do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
import torch
from torch import nn

from hypergen.errors import UsageError, WeightsError
from hypergen.serving import merge_into_base, save_merged
from hypergen.serving.output import check_out
from hypergen.specs import DeltaSpec, FullSpec, LoRASpec, PrefixSpec
from hypergen.targets import make_target


def draw(spec, count=1, size=0.3):
    random = torch.Generator().manual_seed(0)
    return spec.from_flat(size * torch.randn(count, spec.numel, generator=random))


def run(net, inputs):
    with torch.no_grad():
        return tiny.logits(net(**inputs) if isinstance(inputs, dict) else net(inputs))


def adapted(net, weights, inputs):
    with torch.no_grad():
        return tiny.logits(make_target(net, weights.spec)(weights, inputs))


LORAS = [
    ("llama", {"target_modules": "all-linear"}),
    ("llama", {"target_modules": ["embed_tokens", "lm_head"], "use_rslora": True}),
    ("gpt2", {"target_modules": "all-linear"}),  # Conv1D, tied embeddings that are left alone
    ("gpt2", {"target_modules": ["c_attn", "wte"], "alpha": 5.0}),
    ("gpt2", {"target_modules": ["lm_head"]}),
    ("gpt2", {"target_modules": ["wte", "lm_head"]}),
    ("tied", {"target_modules": ["embed", "mid"]}),
    ("tagger", {"target_modules": ["embed", "fc1"], "rank_pattern": {"fc1": 3}}),
]


@pytest.mark.parametrize(("name", "options"), LORAS)
def test_a_merged_copy_computes_what_base_and_adapter_compute(name, options):
    net, inputs = tiny.make(name), tiny.batch(name, 3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    base = run(net, inputs)
    weights = draw(LoRASpec(net, r=2, **options))
    merged = merge_into_base(weights, net)
    expected = adapted(net, weights, inputs)
    assert torch.allclose(run(merged, inputs), expected, atol=1e-5)
    assert (expected - base).abs().max() > 1e-2
    # The frozen model is as it was, and shares nothing with the copy.
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(run(net, inputs), base)
    with torch.no_grad():
        for parameter in merged.parameters():
            parameter.zero_()
    assert torch.equal(run(net, inputs), base)


@pytest.mark.parametrize(("name", "options"), [row for row in LORAS if row[0] in ("llama", "gpt2")])
def test_the_files_of_a_merged_model_give_the_same_logits(name, options, tmp_path):
    from transformers import AutoModelForCausalLM

    net, inputs = tiny.make(name), tiny.batch(name, 3)
    tied = net.config.tie_word_embeddings
    weights = draw(LoRASpec(net, r=2, **options))
    weights.provenance = {"text": "Say yes.", "generator": "TextToLoRA"}
    save_merged(merge_into_base(weights, net), None, weights, tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    assert torch.allclose(run(loaded, inputs), adapted(net, weights, inputs), atol=1e-5)
    assert net.config.tie_word_embeddings == tied
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "> Say yes." in card
    assert "AutoModelForCausalLM.from_pretrained(" in card
    check_out(tmp_path / "merged")  # what was written here may be replaced
    (tmp_path / "merged" / "more.txt").write_text("mine")
    with pytest.raises(UsageError, match="choose another folder"):
        check_out(tmp_path / "merged")


@pytest.mark.parametrize("kind", [DeltaSpec, FullSpec])
@pytest.mark.parametrize(
    ("name", "select"), [("llama", "*"), ("tied", "*"), ("tied", "head.*"), ("conv", "fc.*")]
)
def test_differences_and_whole_weights_are_put_in_place(kind, name, select):
    net, inputs = tiny.make(name), tiny.batch(name, 3)
    weights = draw(kind(net, select), size=0.1)
    expected = adapted(net, weights, inputs)
    assert torch.allclose(run(merge_into_base(weights, net), inputs), expected, atol=1e-5)


def test_statistics_of_batch_norm_are_put_in_place():
    net, inputs = tiny.make("conv"), tiny.batch("conv", 3)
    spec = FullSpec(net, buffers=True)
    weights = spec.from_flat(spec.initial())
    assert torch.allclose(
        run(merge_into_base(weights, net), inputs), adapted(net, weights, inputs), atol=1e-5
    )


def test_the_dtype_of_the_base_stays():
    net = tiny.make("llama")
    weights = draw(LoRASpec(net, ["q_proj"], r=2))
    half = merge_into_base(weights, tiny.make("llama").to(torch.bfloat16))
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    path = weights.spec.modules[0]
    exact = net.get_submodule(path).weight.to(torch.bfloat16).float()
    exact = exact + weights.spec.delta(weights, path)[0]
    assert torch.equal(half.get_submodule(path).weight, exact.to(torch.bfloat16))


class Packed(nn.Linear):
    """A linear layer whose weight is held as whole numbers, as quantisers do."""

    def __init__(self) -> None:
        super().__init__(8, 12)
        self.weight = nn.Parameter(torch.zeros(12, 8, dtype=torch.uint8), requires_grad=False)


def test_quantised_bases_are_refused():
    net = tiny.make("mlp")
    weights = draw(LoRASpec(net, ["fc1"], r=2))
    net.fc1 = Packed()
    message = r"'fc1' \(Packed\) holds no plain .* torch\.uint8\): merge into the unquantised model"
    with pytest.raises(WeightsError, match=message):
        merge_into_base(weights, net)
    net.fc1 = nn.utils.parametrizations.weight_norm(nn.Linear(8, 12))
    with pytest.raises(WeightsError, match=r"holds no plain .* \(no weight\)"):
        merge_into_base(weights, net)
    for config in ({"quant_method": "gptq"}, SimpleNamespace(quant_method="gptq")):
        net.config = SimpleNamespace(quantization_config=config)
        with pytest.raises(WeightsError, match=r"the base is quantised \(gptq\)"):
            merge_into_base(weights, net)


def test_what_cannot_be_merged_is_told():
    net = tiny.make("llama")
    spec = LoRASpec(net, ["q_proj"], r=2)
    with pytest.raises(WeightsError, match="one network is merged into a base, not 2"):
        merge_into_base(draw(spec, 2), net)
    with pytest.raises(WeightsError, match="PrefixSpec cannot be merged into its base"):
        merge_into_base(draw(PrefixSpec(net, 2)), net)
    with pytest.raises(WeightsError, match="made for another base model than this Llama"):
        merge_into_base(draw(spec), tiny.make("llama", seed=1))
    with pytest.raises(WeightsError, match="made for another base model than this GPT2LMHeadModel"):
        merge_into_base(draw(spec), tiny.make("gpt2"))
    with pytest.raises(WeightsError, match="contains NaN"):
        merge_into_base(draw(spec) * float("nan"), net)
    small = tiny.make("mlp")
    weights = draw(LoRASpec(small, r=2))
    with pytest.raises(WeightsError, match="MLP is no transformers model"):
        save_merged(merge_into_base(weights, small), None, weights, "nowhere")


def test_ties_that_files_cannot_part_are_told():
    net = tiny.make("llama")
    first, second = (layer.self_attn for layer in net.model.layers)
    second.q_proj.weight = first.q_proj.weight
    spec = LoRASpec(net, r".*layers\.0\.self_attn\.q_proj", r=2)
    with pytest.raises(WeightsError, match="shares an adapted weight between modules"):
        merge_into_base(draw(spec), net)
