from __future__ import annotations

import json

import pytest
import torch
from reading_zoo import MLP_SPEC, plain_rows, write_rows
from torch import nn

from hypergen.errors import RunError, UsageError, WeightsError
from hypergen.specs import FullSpec
from hypergen.zoo.reading import Moments, Normalizer


@pytest.mark.parametrize("by", ["entry", "slot"])
def test_scores_have_mean_0_and_std_1_and_decode_back(tmp_path, by):
    flat = 5 + 3 * torch.randn(18, MLP_SPEC.numel)
    zoo = write_rows(tmp_path / "zoo", plain_rows(), flat)
    normalizer = Normalizer.fit(zoo, by)
    scores = normalizer.encode(flat)
    assert torch.allclose(normalizer.decode(scores), flat, rtol=1e-5)
    for i, name in enumerate(MLP_SPEC.names):
        part = MLP_SPEC.unpack(scores)[name].flatten(1)
        over = 0 if by == "entry" else (0, 1)
        assert float(part.mean(over).abs().max()) < 1e-5, i
        assert torch.allclose(part.std(over, correction=0), torch.tensor(1.0), rtol=1e-4), i


def test_a_spread_below_the_floor_is_not_blown_up():
    flat = torch.randn(10, MLP_SPEC.numel)
    flat[:, 0] = 0.1  # constant, in a slot that varies
    last = MLP_SPEC.unpack(torch.arange(MLP_SPEC.numel).float())[MLP_SPEC.names[-1]].long()
    flat[:, last] = 0.3  # a whole slot that is constant, and not a round number
    found = Moments.of(MLP_SPEC, flat)
    normalizer = Normalizer.from_moments(found, floor=0.01)
    assert float(normalizer.std[0]) == pytest.approx(0.01 * float(found.slot_std[0]))
    assert normalizer.std[last].eq(1).all()
    assert Normalizer.from_moments(found, "slot").std[last].eq(1).all()
    assert normalizer.encode(flat)[:, 0].abs().max() < 1e-4
    assert torch.allclose(normalizer.decode(normalizer.encode(flat)), flat, atol=1e-6)
    with pytest.raises(UsageError, match="floor"):
        Normalizer.from_moments(found, floor=0)


@pytest.mark.parametrize("by", ["entry", "slot"])
def test_files_bring_back_the_same_bits(tmp_path, by):
    normalizer = Normalizer.from_moments(Moments.of(MLP_SPEC, torch.randn(9, MLP_SPEC.numel)), by)
    loaded = Normalizer.load(normalizer.save(tmp_path / "norm"))
    assert loaded.by == by
    assert loaded.spec == MLP_SPEC
    assert torch.equal(loaded.mean, normalizer.mean)
    assert torch.equal(loaded.std, normalizer.std)


def test_damaged_files_are_refused_by_name(tmp_path):
    normalizer = Normalizer.from_moments(Moments.of(MLP_SPEC, torch.randn(9, MLP_SPEC.numel)))
    folder = normalizer.save(tmp_path / "norm")
    settings = folder / "normalizer.json"
    good = json.loads(settings.read_text())
    for change in ({"format_version": 99}, {"by": "row"}, {"by": "slot"}, {"spec": {}}):
        settings.write_text(json.dumps({**good, **change}))
        with pytest.raises(RunError, match=r"normalizer\.json"):
            Normalizer.load(folder)
    (folder / "normalizer.safetensors").write_bytes(b"no")
    with pytest.raises(RunError, match=r"normalizer\.safetensors"):
        Normalizer.load(folder)


def test_another_spec_is_refused():
    normalizer = Normalizer.from_moments(Moments.of(MLP_SPEC, torch.randn(9, MLP_SPEC.numel)))
    other = FullSpec(nn.Linear(2, 2))
    with pytest.raises(WeightsError, match="another spec"):
        normalizer.encode(torch.randn(2, other.numel))
    with pytest.raises(WeightsError, match="shape"):
        Normalizer(other, normalizer.mean, normalizer.std)
    with pytest.raises(WeightsError, match="positive"):
        Normalizer(other, torch.zeros(other.numel), torch.zeros(other.numel))
