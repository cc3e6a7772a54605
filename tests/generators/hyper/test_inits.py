"""Sizes at the start, slot by slot. The networks' activations: tests/contracts."""

from __future__ import annotations

import pytest
import torch

from hypergen.generators.hyper.inits import group_stds, head_std, output_scale, start_offset
from hypergen.specs import Slot, WeightSpec

WEIGHT = Slot("w", (8, 4), "weight", fan_in=4, fan_out=8, std=0.7, scale=0.7)
BIAS = Slot("b", (8,), "bias", mean=0.5, scale=0.1)
EMBEDDING = Slot("e", (9, 4), "embedding", fan_in=1, fan_out=4, std=1.0)


def test_the_factors_of_the_papers():
    assert head_std(WEIGHT, "theta0", 16) == 0
    assert head_std(WEIGHT, "forward", 16) == 1 / 4
    assert head_std(WEIGHT, "hyperfan_in", 16) == pytest.approx((2 / (4 * 16)) ** 0.5)
    assert head_std(WEIGHT, "hyperfan_out", 16) == pytest.approx((2 / (8 * 16)) ** 0.5)
    assert head_std(WEIGHT, "hyperfan_in", 16, relu=False) == pytest.approx((1 / 64) ** 0.5)
    # A lookup adds nothing up: its rows keep their own standard deviation.
    assert head_std(EMBEDDING, "hyperfan_in", 16) == 1 / 4
    assert all(head_std(BIAS, init, 16) == 0 for init in ("forward", "hyperfan_in"))


def test_outputs_have_the_size_of_the_slot():
    assert output_scale(WEIGHT, "forward") == 0.7
    assert output_scale(BIAS, "forward") == 0.1
    assert output_scale(WEIGHT, "hyperfan_in") == 1


def test_a_shared_head_serves_slots_of_different_sizes():
    slots = [Slot(n, (3,), "other", std=s, scale=s) for n, s in (("a", 0.5), ("b", 0.1))]
    std, factors = group_stds(slots, "hyperfan_in", 4)
    assert [std * f * 2 for f in factors] == pytest.approx([0.5, 0.1])
    std, factors = group_stds(slots, "forward", 4)
    assert [std * f * 2 for f in factors] == pytest.approx([0.5, 0.1])


def test_the_offset_is_a_network_or_the_mean():
    spec = WeightSpec([WEIGHT, BIAS])
    start = spec.unpack(start_offset(spec, "theta0"))
    assert float(start["w"].std()) == pytest.approx(0.7, rel=0.4)
    mean = spec.unpack(start_offset(spec, "hyperfan_in"))
    assert torch.equal(mean["w"], torch.zeros(8, 4))
    assert torch.equal(mean["b"], torch.full((8,), 0.5))
