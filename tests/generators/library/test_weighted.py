"""Softmax-weighted experts: from the nearest to the mean."""

from __future__ import annotations

import matrix
import pytest
import torch

from hypergen.conditions import HashingEncoder
from hypergen.generators import NearestExpert, WeightedExperts
from hypergen.specs import LoRASpec

TEXTS = ["even digits", "odd digits", "round ones", "a seven or a nine"]
ASKED = ["an odd digit", "is it round", "seven"]


def experts(count: int = 4):
    spec = matrix.spec("lora_rank_pattern")
    flat = torch.randn(count, spec.numel, generator=torch.Generator().manual_seed(0))
    return spec.from_flat(flat)


def mixed(**options) -> WeightedExperts:
    return WeightedExperts.from_weights(experts(), TEXTS, HashingEncoder(32), **options)


def test_one_expert_is_the_nearest():
    near = NearestExpert.from_weights(experts(), TEXTS, HashingEncoder(32)).generate(ASKED)
    assert torch.equal(mixed(top_k=1).generate(ASKED).flat(), near.flat())
    cold = mixed(top_k=None, temperature=1e-4).generate(ASKED)
    assert torch.allclose(cold.flat(), near.flat(), atol=1e-5)


def test_a_hot_mix_is_the_mean():
    hot = mixed(top_k=None, temperature=1e6).generate(ASKED)
    assert torch.allclose(hot.flat(), experts().flat().mean(0).expand(3, -1), atol=1e-5)


@pytest.mark.parametrize("top_k", [1, 2, None])
def test_coefficients_are_shares_of_the_most_similar(top_k):
    net = mixed(top_k=top_k, temperature=0.2)
    condition = net.encode(text=ASKED)
    shares = net.route(condition)
    assert torch.allclose(shares.sum(1), torch.ones(3))
    assert (shares > 0).sum(1).tolist() == [top_k or 4] * 3
    assert torch.equal(shares.argmax(1), net.similarity(condition).argmax(1))


def test_updates_of_one_expert_are_its_own_to_rounding():
    net = mixed(top_k=1, mix="updates")
    spec, out = net.spec, net.generate(TEXTS)
    assert isinstance(spec, LoRASpec)
    for module in spec.modules:
        expected = spec.delta(experts(), module)
        difference = (spec.delta(out, module) - expected).abs().max()
        assert float(difference) < 1e-5 * float(expected.abs().max())


def test_updates_are_mixed_and_not_factors():
    net = mixed(top_k=2, temperature=0.2, mix="updates")
    spec, shares = net.spec, net.route(net.encode(text=ASKED))
    assert isinstance(spec, LoRASpec)
    out = net.generate(ASKED)
    for module in spec.modules:
        whole = torch.einsum("be,eoi->boi", shares, spec.delta(experts(), module))
        u, s, vh = torch.linalg.svd(whole, full_matrices=False)
        rank = spec.rank(module)
        best = (u[..., :rank] * s[..., None, :rank]) @ vh[..., :rank, :]
        assert float((spec.delta(out, module) - best).abs().max()) < 1e-4 * float(s.max())
