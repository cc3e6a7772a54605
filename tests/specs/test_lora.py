"""LoRASpec, the Gram identity and exact sums."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hypergen.errors import SpecError, WeightsError
from hypergen.specs import FullSpec, LoRASpec, Weights, WeightSpec, concatenate_ranks, gram
from hypergen.targets import make_target


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99)
)
def test_gram_is_the_inner_product_of_the_materialised_updates(r1, r2, inputs, outputs, seed):
    g = torch.Generator().manual_seed(seed)
    a1, a2 = (torch.randn(3, r, inputs, generator=g, dtype=torch.float64) for r in (r1, r2))
    b1, b2 = (torch.randn(3, outputs, r, generator=g, dtype=torch.float64) for r in (r1, r2))
    full = ((b1 @ a1) * (b2 @ a2)).sum((-2, -1))
    assert torch.allclose(gram(a1, b1, a2, b2), full, rtol=1e-10, atol=1e-10)
    halves = [t.bfloat16() for t in (a1, b1, a2, b2)]
    assert gram(*halves, dtype=torch.float64).dtype == torch.float64


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),  # r
            st.sampled_from([1.0, 3.0, 8.0]),  # alpha
            st.booleans(),  # rsLoRA
            st.integers(1, 5),  # rank of fc2
            st.sampled_from([-2.0, 0.5, 1.0]),  # coefficient
        ),
        min_size=1,
        max_size=4,
    )
)
def test_concatenated_ranks_are_the_sum_of_the_updates(rows):
    net = tiny.model("mlp")
    adapters = []
    for i, (r, alpha, rslora, r2, _) in enumerate(rows):
        spec = LoRASpec(net, "all-linear", r, alpha, use_rslora=rslora, rank_pattern={"fc2": r2})
        adapters.append(spec.from_flat(torch.randn(2, spec.numel)))
        assert adapters[i].spec.modules == ("fc1", "fc2", "out")
    coefficients = [row[-1] for row in rows]
    total = concatenate_ranks(adapters, coefficients)
    spec = total.spec
    assert isinstance(spec, LoRASpec)
    assert spec.rank("fc1") == sum(row[0] for row in rows)
    assert spec.rank("fc2") == sum(row[3] for row in rows)
    for path in spec.modules:
        expected = sum(
            c * w.spec.delta(w, path) for c, w in zip(coefficients, adapters, strict=True)
        )
        assert torch.allclose(spec.delta(total, path), expected, rtol=1e-4, atol=1e-4)
    assert WeightSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_sum_runs_and_is_exported_like_any_lora(tmp_path):
    from peft import PeftModel

    net = tiny.make("tagger")
    one = LoRASpec(net, ["embed", "fc1"], r=2, alpha=3)
    two = LoRASpec(net, ["embed", "fc1"], r=3, rank_pattern={"fc1": 1})
    adapters = [s.from_flat(torch.randn(1, s.numel)) for s in (one, two)]
    total = concatenate_ranks(adapters)
    ids = tiny.batch("tagger", 4)
    ours = make_target(net, total.spec)(total, ids)
    total.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(tiny.make("tagger"), tmp_path / "adapter").eval()
    assert torch.allclose(loaded(ids), ours, atol=1e-5)


def test_only_loras_of_one_base_and_the_same_modules_are_summed():
    net, other = tiny.model("mlp"), tiny.make("mlp", seed=1)

    def draw(spec: WeightSpec) -> Weights:
        return spec.from_flat(torch.randn(1, spec.numel))

    lora = draw(LoRASpec(net, ["fc1"]))
    with pytest.raises(WeightsError, match="different modules: 'fc2'"):
        concatenate_ranks([lora, draw(LoRASpec(net, ["fc1", "fc2"]))])
    with pytest.raises(WeightsError, match=r"different base models: MLP \(.*\) and MLP \("):
        concatenate_ranks([lora, draw(LoRASpec(other, ["fc1"]))])
    with pytest.raises(WeightsError, match="FullSpec is not LoRA"):
        concatenate_ranks([lora, draw(FullSpec(net))])
    with pytest.raises(WeightsError, match="1 adapters need as many coefficients"):
        concatenate_ranks([lora], [1.0, 2.0])


def test_slots_are_those_of_the_file_in_the_order_of_the_model():
    spec = LoRASpec(tiny.model("llama"), ["q_proj", "v_proj"], r=3)
    assert spec.modules == tuple(
        f"model.layers.{i}.self_attn.{p}_proj" for i in (0, 1) for p in ("q", "v")
    )
    slot = spec["model.layers.1.self_attn.v_proj.lora_B.weight"]
    assert (slot.shape, slot.role, slot.layer) == ((8, 3), "lora_B", 1)
    assert spec.config["alpha"] == 6
    assert spec.config["target_modules"] == ["q_proj", "v_proj"]
    # A starts as PEFT starts it, B at zero.
    assert slot.std == 0
    assert spec["model.layers.1.self_attn.v_proj.lora_A.weight"].std == pytest.approx(48**-0.5)


def test_the_update_is_the_scaled_product():
    spec = LoRASpec(tiny.model("mlp"), ["fc1"], r=4, alpha=2, use_rslora=True)
    w = spec.from_flat(torch.randn(2, spec.numel))
    a, b = spec.pair(w, "fc1")
    assert torch.allclose(spec.delta(w, "fc1"), b @ a)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mlp", {"r": 0}, "at least 1"),
        ("mlp", {"rank_pattern": {"fc1": 0}}, "at least 1"),
        ("mlp", {"rank_pattern": {"fc": 2}}, "rank_pattern names 'fc', which is not targeted"),
        ("mlp", {"target_modules": ["fc3"]}, r"'fc3' is not in the model\. Did you mean 'fc2'"),
        ("mlp_norm", {"target_modules": ["norm"]}, "'norm' is a LayerNorm; LoRASpec takes"),
    ],
)
def test_wrong_arguments_are_told(name, options, message):
    with pytest.raises(SpecError, match=message):
        LoRASpec(tiny.model(name), **options)


def test_a_module_that_its_owner_never_calls_is_refused():
    """nn.MultiheadAttention reads its projection's weight: a LoRA on it would do nothing."""
    net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    with pytest.raises(SpecError, match=r"'self_attn\.out_proj' belongs to nn\.MultiheadAttention"):
        LoRASpec(net, "all-linear")
    assert LoRASpec(net, ["linear1", "linear2"]).modules == ("linear1", "linear2")


def test_a_spec_from_the_meta_device_serves_the_real_model():
    with torch.device("meta"):
        net = tiny.MLP()
    spec = LoRASpec(net, ["fc1"], r=2)
    assert spec.slots == LoRASpec(tiny.model("mlp"), ["fc1"], r=2).slots
    target = make_target(tiny.make("mlp"), spec)
    out = target(spec.from_flat(spec.initial()), tiny.batch("mlp", 2))
    assert torch.equal(out, target.base(tiny.batch("mlp", 2)))
