"""Standardised weights."""

from __future__ import annotations

import pytest
import torch

from hypergen.errors import SpecError
from hypergen.generators.diffusion.standardize import Standardize
from hypergen.specs import Slot, WeightSpec

SPEC = WeightSpec([Slot("a", (3, 4), "weight"), Slot("b", (5,), "bias"), Slot("c", (), "bias")])


def checkpoints(count: int = 40) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.1, 3, SPEC.numel)
    return 2 * scale + scale * torch.randn(count, SPEC.numel, generator=draw)


def test_entries_get_mean_zero_and_variance_one():
    flat, normal = checkpoints(), Standardize(SPEC, "entry")
    normal.fit(flat)
    out = normal.encode(flat)
    assert torch.allclose(out.mean(0), torch.zeros(SPEC.numel), atol=1e-5)
    assert torch.allclose(out.var(0, correction=0), torch.ones(SPEC.numel), atol=1e-4)
    assert torch.allclose(normal.decode(out), flat, atol=1e-5)


def test_slots_get_one_pair_of_numbers_each():
    flat, normal = checkpoints(), Standardize(SPEC, "slot")
    normal.fit(flat)
    parts = normal.encode(flat).split([slot.numel for slot in SPEC], dim=1)
    for part, mean, std in zip(
        parts,
        normal.mean.split([12, 5, 1]),
        normal.std.split([12, 5, 1]),
        strict=True,
    ):
        assert len(mean.unique()) == len(std.unique()) == 1
        assert float(part.mean()) == pytest.approx(0, abs=1e-5)
        assert float(part.var(correction=0)) == pytest.approx(1, abs=1e-4)
    assert torch.allclose(normal.decode(normal.encode(flat)), flat, atol=1e-5)


def test_numbers_that_never_vary_stay_finite():
    flat, normal = checkpoints(), Standardize(SPEC, "entry")
    flat[:, 3] = 7.0
    normal.fit(flat)
    assert torch.isfinite(normal.encode(flat)).all()
    assert torch.allclose(normal.decode(normal.encode(flat)), flat, atol=1e-5)
    normal.fit(flat[:1])  # a single checkpoint has no spread at all
    assert torch.equal(normal.encode(flat[:1]), torch.zeros(1, SPEC.numel))
    assert torch.equal(normal.decode(torch.zeros(1, SPEC.numel)), flat[:1])
    normal = Standardize(SPEC, "entry", floor=0.0)
    normal.fit(flat[:1])  # others are then as far away as they are
    assert torch.allclose(normal.encode(flat), flat - flat[:1])


def test_wrong_settings_are_named():
    with pytest.raises(SpecError, match="entry or slot"):
        Standardize(SPEC, "slots")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="floor"):
        Standardize(SPEC, "slot", floor=-1.0)
