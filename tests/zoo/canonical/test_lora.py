"""The gauge of LoRA: same update, one pair of factors, padding at the end."""

from __future__ import annotations

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen.errors import WeightsError
from hypergen.specs import FullSpec, LoRASpec
from hypergen.specs.merging import balance
from hypergen.targets import make_target
from hypergen.zoo.canonical import canonicalize_lora

MODELS = ["llama", "gpt2", "tagger"]


def spec_of(name, r=4):
    targets = ["embed", "fc1", "fc2"] if name == "tagger" else "all-linear"
    return LoRASpec(tiny.model(name), targets, r=r)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("r", [1, 4, 9])  # 9 is more than some modules are wide
def test_updates_stay_and_a_second_time_changes_nothing(name, r):
    spec = spec_of(name, r)
    weights = spec.from_flat(torch.randn(3, spec.numel))
    once = canonicalize_lora(weights)
    for module in spec.modules:
        before, after = spec.delta(weights, module), spec.delta(once, module)
        assert float((after - before).norm() / before.norm()) < 1e-5
    twice = canonicalize_lora(once).flat()
    assert torch.allclose(twice, once.flat(), rtol=0, atol=1e-5)


def test_the_function_stays():
    net = tiny.make("llama")
    spec = LoRASpec(net, "all-linear", r=3)
    weights = spec.from_flat(0.3 * torch.randn(3, spec.numel))
    target, inputs = make_target(net, spec), tiny.batch("llama", 6)
    before = tiny.logits(target(weights, inputs))
    after = tiny.logits(target(canonicalize_lora(weights), inputs))
    assert float((after - before).abs().max() / before.abs().max()) < 1e-5


@settings(max_examples=50)
@given(
    seed=st.integers(0, 100_000),
    rank=st.integers(1, 5),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    zero=st.integers(0, 5),
)
def test_factors_of_one_update_become_equal(seed, rank, inputs, outputs, zero):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(2, rank, inputs, generator=generator)
    b = torch.randn(2, outputs, rank, generator=generator)
    b[..., rank - min(zero, rank) :] = 0
    gauge = torch.linalg.qr(torch.randn(2, rank, rank, generator=generator)).Q
    gauge = gauge * torch.linspace(0.5, 2, rank)
    new_a, new_b = balance(a, b)
    other_a, other_b = balance(gauge @ a, b @ torch.linalg.inv(gauge))
    product, size = b @ a, float((b @ a).norm()) + 1e-12
    assert float((new_b @ new_a - product).norm()) <= 1e-5 * size
    assert float((other_b @ other_a - product).norm()) <= 1e-5 * size
    # Balanced, sorted, orthogonal.
    gram_a, gram_b = new_a @ new_a.mT, new_b.mT @ new_b
    assert torch.allclose(gram_a, gram_b, atol=1e-5 * size)
    values = gram_a.diagonal(dim1=-2, dim2=-1)
    assert bool((values[:, 1:] <= values[:, :-1] + 1e-5 * size).all())
    assert torch.allclose(gram_a, torch.diag_embed(values), atol=1e-5 * size)
    # The same factors from either pair, where the singular values are clearly apart.
    gaps = (values[:, :-1] - values[:, 1:]).abs()
    if (
        rank == 1
        or float(
            gaps[values[:, :-1] > 0].min()
            if gaps.numel() and bool((values[:, :-1] > 0).any())
            else 1
        )
        > 0.05
    ):
        again_a, again_b = balance(new_a, new_b)
        assert torch.allclose(again_a, new_a, atol=1e-4)
        assert torch.allclose(again_b, new_b, atol=1e-4)
        # The sign follows the largest entry; two of almost one size may swap places.
        assert torch.allclose(other_a.abs(), new_a.abs(), atol=1e-3)


def test_signs_are_fixed():
    a, b = torch.randn(5, 3, 8), torch.randn(5, 6, 3)
    new_a, _ = balance(a, b)
    peaks = new_a.gather(-1, new_a.abs().argmax(-1, keepdim=True))
    assert bool((peaks > 0).all())
    for one, other in zip(balance(a, b), balance(-a, -b), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_adapters_at_their_start_are_zero(name):
    spec = spec_of(name)
    start = spec.from_flat(torch.stack([spec.initial(i) for i in range(2)]))
    assert float(canonicalize_lora(start).flat().abs().max()) == 0


def test_deficient_ranks_end_in_zeros():
    a, b = torch.randn(4, 4, 10), torch.randn(4, 12, 4)
    a[:, 1] = 0  # padded
    b[:, :, 3] = b[:, :, 0]  # twice the same column
    new_a, new_b = balance(a, b)
    assert torch.allclose(new_b @ new_a, b @ a, atol=1e-4)
    assert float(new_a[:, 2:].abs().max()) == 0
    assert float(new_b[:, :, 2:].abs().max()) == 0
    assert bool((new_a[:, :2].norm(dim=-1) > 0.1).all())
    again_a, again_b = balance(new_a, new_b)
    assert torch.allclose(again_a, new_a, atol=1e-5)
    assert torch.allclose(again_b, new_b, atol=1e-5)


def test_an_adapter_does_not_depend_on_its_batch():
    spec = spec_of("gpt2")
    weights = spec.from_flat(torch.randn(4, spec.numel))
    together = canonicalize_lora(weights)
    for i in range(4):
        alone = canonicalize_lora(weights[i])
        assert torch.allclose(alone.flat()[0], together.flat()[i], atol=1e-6)


def test_score_provenance_and_dtype_are_kept():
    spec = spec_of("tagger")
    weights = spec.from_flat(torch.randn(2, spec.numel).bfloat16().requires_grad_())
    weights.expected_gain, weights.provenance = torch.ones(2), {"task": "t"}
    before = weights.flat().clone()
    out = canonicalize_lora(weights)
    assert (out.dtype, out.provenance) == (torch.bfloat16, {"task": "t"})
    assert torch.equal(out.expected_gain, torch.ones(2))
    assert torch.equal(weights.flat(), before)
    assert not out.flat().requires_grad


def test_other_weights_are_refused():
    full = FullSpec(tiny.model("mlp"))
    with pytest.raises(WeightsError, match="FullSpec is not LoRA"):
        canonicalize_lora(full.from_flat(torch.zeros(1, full.numel)))
    spec = spec_of("tagger")
    flat = torch.zeros(1, spec.numel)
    flat[0, -1] = float("nan")
    with pytest.raises(WeightsError, match=rf"slot '{spec.names[-1]}' contains NaN"):
        canonicalize_lora(spec.from_flat(flat))
