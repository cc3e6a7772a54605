"""Merging: the identities that define each way."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hypergen.errors import WeightsError
from hypergen.specs import DeltaSpec, FullSpec, LoRASpec, Weights, WeightSpec, concatenate_ranks
from hypergen.specs.merging import dare, exact_mix, mix_slots, mix_updates, task_arithmetic, ties


class Net(nn.Module):
    """Two modules of one shape, one of another, and one whose rank is above its smaller side."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(9, 7)
        self.second = nn.Linear(9, 7)
        self.third = nn.Linear(7, 5)
        self.last = nn.Linear(5, 2)


FULL = FullSpec(Net())
LORA = LoRASpec(Net(), "all-linear", r=3, alpha=5.0)


def networks(spec: WeightSpec, count: int, seed: int = 0) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return spec.from_flat(torch.randn(count, spec.numel, generator=generator))


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


# -- task arithmetic -------------------------------------------------------------------------


def test_without_coefficients_it_is_the_mean():
    weights = networks(FULL, 4)
    assert largest(task_arithmetic(weights).flat()[0], weights.flat().mean(0)) < 1e-6


def test_one_coefficient_of_one_gives_back_the_network():
    weights, base = networks(FULL, 3), networks(FULL, 1, seed=9)
    out = task_arithmetic(weights, [0.0, 1.0, 0.0], base=base)
    assert largest(out.flat()[0], weights.flat()[1]) < 1e-6
    assert torch.equal(task_arithmetic(weights, [0.0, 1.0, 0.0]).flat()[0], weights.flat()[1])


def test_no_coefficient_gives_back_the_base_and_negative_ones_subtract():
    weights, base = networks(FULL, 3), networks(FULL, 1, seed=9)
    assert torch.equal(task_arithmetic(weights, 0.0, base=base).flat(), base.flat())
    away = task_arithmetic(weights[:1], -1.0, base=base).flat()
    assert largest(away + weights.flat()[:1], 2 * base.flat()) < 1e-5


def test_the_base_and_the_coefficients_must_fit():
    weights = networks(FULL, 3)
    with pytest.raises(WeightsError, match="one network of the same spec"):
        task_arithmetic(weights, base=weights)
    with pytest.raises(WeightsError, match="one network of the same spec"):
        task_arithmetic(weights, base=networks(LORA, 1))
    with pytest.raises(WeightsError, match="3 networks need as many coefficients, not 2"):
        task_arithmetic(weights, [1.0, 2.0])


# -- TIES ------------------------------------------------------------------------------------


def entries(*rows: list[float]) -> Weights:
    spec = FullSpec(nn.Linear(2, 2, bias=False))
    return spec.from_flat(torch.tensor(rows))


def test_ties_of_one_network_is_its_largest_changes():
    one = entries([1.0, -4.0, 3.0, 0.5])
    assert ties(one, density=0.5).flat().tolist() == [[0.0, -4.0, 3.0, 0.0]]
    assert torch.equal(ties(one, density=1.0).flat(), one.flat())
    assert ties(one, density=1.0, scale=2.0).flat().tolist() == [[2.0, -8.0, 6.0, 1.0]]


def test_ties_of_agreeing_signs_is_the_mean():
    weights = networks(FULL, 3)
    same = FULL.from_flat(weights.flat().abs())
    assert largest(ties(same, density=1.0).flat()[0], same.flat().mean(0)) < 1e-6


def test_ties_keeps_the_stronger_sign_alone():
    #         3 and 1 outvote -2; a tie of 2 and -2 does not change; -5 outvotes 4; 0 does not vote
    weights = entries([3.0, 2.0, 4.0, 0.0], [-2.0, -2.0, -5.0, 0.0], [1.0, 0.0, 0.0, 6.0])
    assert ties(weights, density=1.0).flat().tolist() == [[2.0, 0.0, -5.0, 6.0]]


def test_ties_counts_changes_from_the_base():
    weights, base = networks(FULL, 3), networks(FULL, 1, seed=9)
    moved = FULL.from_flat(weights.flat() + base.flat())
    expected = ties(weights, density=0.3).flat() + base.flat()
    assert largest(ties(moved, density=0.3, base=base).flat(), expected) < 1e-5
    with pytest.raises(WeightsError, match="density"):
        ties(weights, density=0.0)


# -- DARE ------------------------------------------------------------------------------------


def test_dare_without_dropping_changes_nothing():
    weights = networks(FULL, 2)
    assert torch.equal(dare(weights, drop=0.0).flat(), weights.flat())


def test_dare_drops_its_share_and_scales_the_others():
    spec = FullSpec(nn.Linear(100, 100))
    weights = networks(spec, 2)
    out = dare(weights, drop=0.8).flat()
    kept = out != 0
    assert float(kept.float().mean()) == pytest.approx(0.2, abs=0.01)
    assert largest(out[kept], weights.flat()[kept] * 5) < 1e-5
    ones = spec.from_flat(torch.ones(2, spec.numel))
    assert float(dare(ones, drop=0.8).flat().mean()) == pytest.approx(1.0, abs=0.03)


def test_dare_is_seeded_and_networks_draw_apart():
    weights = networks(FULL, 3)
    first = dare(weights, drop=0.5, seed=1).flat()
    assert torch.equal(first, dare(weights, drop=0.5, seed=1).flat())
    assert not torch.equal(first, dare(weights, drop=0.5, seed=2).flat())
    assert not torch.equal(first[0] == 0, first[1] == 0)
    assert torch.equal(first[:2], dare(weights[:2], drop=0.5, seed=1).flat())
    base = networks(FULL, 1, seed=9)
    assert bool((dare(weights, drop=0.5, base=base).flat() == base.flat()).any())
    with pytest.raises(WeightsError, match="drop"):
        dare(weights, drop=1.0)


# -- mixes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [FULL, LORA], ids=["full", "lora"])
def test_slots_of_one_coefficient_mix_as_whole_networks(spec):
    weights = networks(spec, 4)
    coefficients = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    spread = coefficients[:, None].expand(-1, len(spec), -1)
    assert largest(mix_slots(weights, spread).flat(), weights.mix(coefficients).flat()) < 1e-5


def test_each_slot_takes_its_own_coefficients():
    weights = networks(FULL, 3)
    chosen = torch.tensor([i % 3 for i in range(len(FULL))])
    one_hot = nn.functional.one_hot(chosen, 3).float()[None]
    mixed = mix_slots(weights, one_hot)
    for slot, number in zip(FULL, chosen.tolist(), strict=True):
        assert torch.equal(mixed[slot.name][0], weights[slot.name][number])
    with pytest.raises(WeightsError, match="expected"):
        mix_slots(weights, one_hot[:, :2])


def test_a_mix_of_one_network_is_its_update():
    weights = networks(LORA, 4)
    mixed = mix_updates(weights, torch.ones(4, 1), torch.arange(4)[:, None])
    for module in LORA.modules:
        expected = LORA.delta(weights, module)
        assert largest(LORA.delta(mixed, module), expected) < 1e-5 * float(expected.abs().max())
    assert mixed.spec is LORA


@pytest.mark.parametrize("coefficients", [[0.7, -0.4, 1.1], None])
def test_an_exact_mix_is_the_sum_of_the_updates(coefficients):
    weights = networks(LORA, 3)
    weights.provenance = {"text": ["a", "b", "c"]}
    mixed = exact_mix(weights, coefficients)
    factors = coefficients or [1 / 3] * 3
    assert len(mixed) == 1
    assert isinstance(mixed.spec, LoRASpec)
    assert mixed.spec.config["r"] == 9
    assert not mixed.spec.config["rank_pattern"]  # one rank for all, as servers want it
    assert {mixed.spec.scaling(module) for module in LORA.modules} == {1.0}
    assert mixed.provenance == {"text": ["a", "b", "c"], "mix": factors}
    for module in LORA.modules:
        each = LORA.delta(weights, module)
        expected = sum(c * delta for c, delta in zip(factors, each, strict=True))
        assert largest(mixed.spec.delta(mixed, module)[0], expected) < 1e-5


def test_an_exact_mix_of_differences_adds_them_and_others_have_none():
    delta = DeltaSpec(Net())
    weights = networks(delta, 2)
    expected = 0.7 * weights.flat()[0] - 0.3 * weights.flat()[1]
    assert largest(exact_mix(weights, [0.7, -0.3]).flat()[0], expected) < 1e-6
    with pytest.raises(WeightsError, match="FullSpec holds no updates that add up"):
        exact_mix(networks(FULL, 2))
    with pytest.raises(WeightsError, match="2 networks need as many coefficients, not 1"):
        exact_mix(weights, [1.0])


def test_a_mix_is_the_best_approximation_of_the_exact_sum():
    weights = networks(LORA, 3)
    coefficients = [0.7, -0.4, 1.1]
    mixed = mix_updates(weights, torch.tensor([coefficients]))
    exact = concatenate_ranks([weights[i] for i in range(3)], coefficients)
    assert isinstance(exact.spec, LoRASpec)
    for module in LORA.modules:
        whole = exact.spec.delta(exact, module)[0].double()
        u, s, vh = torch.linalg.svd(whole, full_matrices=False)
        cut = (u[:, :3] * s[:3]) @ vh[:3]
        assert largest(LORA.delta(mixed, module)[0], cut) < 1e-5 * float(s[0])
        a, b = LORA.pair(mixed, module)
        assert largest((a @ a.mT)[0].diag(), (b.mT @ b)[0].diag()) < 1e-4  # balanced


def test_modules_are_mixed_with_their_own_networks():
    weights = networks(LORA, 3)
    modules = len(LORA.modules)
    index = torch.arange(modules)[None, :, None] % 3
    mixed = mix_updates(weights, torch.full((1, modules, 1), 2.0), index)
    for number, module in enumerate(LORA.modules):
        expected = 2 * LORA.delta(weights, module)[number % 3]
        assert largest(LORA.delta(mixed, module)[0], expected) < 1e-4


def test_updates_of_zero_stay_zero_and_others_are_no_lora():
    zero = LORA.from_flat(torch.zeros(2, LORA.numel))
    assert not mix_updates(zero, torch.ones(1, 2)).flat().any()
    with pytest.raises(WeightsError, match="FullSpec is not LoRA"):
        mix_updates(networks(FULL, 2), torch.ones(1, 2))
    with pytest.raises(WeightsError, match="both must be"):
        mix_updates(networks(LORA, 2), torch.ones(1, 2), torch.zeros(1, 1, dtype=torch.long))
