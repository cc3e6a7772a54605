"""Comparing weights: updates without forming them, entries by role."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hypergen.evaluation.compare import compare_weights, pearson, update_cosine
from hypergen.specs import DeltaSpec


def draw(spec, count=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    return spec.from_flat(torch.randn(count, spec.numel, generator=random))


def test_the_cosine_is_that_of_the_formed_updates(toy):
    a, b = draw(toy.spec), draw(toy.spec, seed=1)

    def formed(weights):
        parts = [toy.spec.delta(weights, m).flatten(1) for m in toy.spec.modules]
        return torch.cat(parts, 1).double()

    expected = F.cosine_similarity(formed(a), formed(b))
    assert torch.allclose(update_cosine(a, b), expected, atol=1e-6)


def test_the_cosine_does_not_depend_on_the_gauge(toy):
    a = draw(toy.spec)
    named = dict(a.named())
    for module in toy.spec.modules:
        name_a, name_b = toy.spec.pair_names(module)
        named[name_a], named[name_b] = 5 * named[name_a], named[name_b] / 5
    assert torch.allclose(update_cosine(a, toy.spec.from_named(named)), torch.ones(4).double())


def test_weights_that_change_nothing_have_no_direction(toy):
    assert update_cosine(draw(toy.spec), toy.spec.neutral(4)).isnan().all()


def test_other_specs_compare_entries(toy):
    spec = DeltaSpec(toy.model)
    a, b = draw(spec), draw(spec, seed=1)
    assert torch.allclose(update_cosine(a, b), F.cosine_similarity(a.flat(), b.flat()).double())
    found = compare_weights(a, a, torch.tensor([1, 2, 3, -1]))
    assert "start" in found.what
    assert torch.allclose(found.cosine, torch.ones(4).double())
    assert found.cosine_other.isnan().tolist() == [False, False, False, True]


def test_entries_are_kept_by_role_and_bounded(toy, monkeypatch):
    monkeypatch.setattr("hypergen.evaluation.compare.MOST_ENTRIES", 50)
    a = draw(toy.spec)
    b = toy.spec.from_flat(2 * a.flat() + 1)
    found = compare_weights(a, b, torch.tensor([1, 0, 3, 2]))
    assert set(found.entries) == {"lora_A", "lora_B"}
    for role, (own, other) in found.entries.items():
        assert own.shape == other.shape == (50,)
        assert torch.allclose(other, 2 * own + 1)
        assert found.correlation[role] == pytest.approx(1)
    again = compare_weights(a, b, torch.tensor([1, 0, 3, 2]))
    assert torch.equal(again.entries["lora_A"][0], found.entries["lora_A"][0])


def test_correlation_is_that_of_torch_or_none():
    x, y = torch.randn(30), torch.randn(30)
    assert pearson(x, y) == pytest.approx(
        float(torch.corrcoef(torch.stack([x, y]))[0, 1]), abs=1e-5
    )
    assert pearson(x, torch.ones(30)) is None
    assert pearson(x[:1], y[:1]) is None
