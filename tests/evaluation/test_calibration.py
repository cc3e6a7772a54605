"""Reliability, errors and the abstention curve, on gains whose answer is known."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr

from hypergen._utils.io import dump_json
from hypergen.evaluation.calibration import calibrate


def draw(count=400, noise=0.05):
    random = torch.Generator().manual_seed(0)
    expected = torch.rand(count, generator=random) * 0.5
    measured = expected + noise * torch.randn(count, generator=random)
    return expected, measured, torch.full((count,), 0.5)


def test_a_truthful_head_is_calibrated():
    found = calibrate(*draw())
    assert found.error < 0.02
    assert found.rmse == pytest.approx(0.05, abs=0.01)
    assert found.rmse < found.rmse_constant
    assert found.correlation > 0.9
    assert [b["count"] for b in found.bins] == [40] * 10
    assert all(b["low"] <= b["expected"] <= b["high"] for b in found.bins)


def test_a_boaster_is_found_out():
    expected, measured, base = draw()
    found = calibrate(expected + 0.3, measured, base)
    assert found.error == pytest.approx(0.3, abs=0.02)
    assert found.correlation > 0.9


def test_the_rank_correlation_is_scipys():
    expected, measured, base = draw(noise=0.2)
    measured = (measured * 10).round() / 10  # ties
    found = calibrate(expected, measured, base)
    assert found.rank_correlation == pytest.approx(spearmanr(expected, measured)[0], abs=1e-6)


def test_abstaining_keeps_the_base_for_the_least_promising():
    expected = torch.tensor([0.3, -0.1, 0.2, 0.0])
    measured = torch.tensor([0.4, -0.2, -0.1, 0.1])
    base = torch.tensor([0.5, 0.6, 0.5, 0.4])
    found = calibrate(expected, measured, base, points=5)
    assert found.kept.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.score.tolist() == pytest.approx([0.5, 0.6, 0.575, 0.6, 0.55])
    assert found.score_ideal.tolist() == pytest.approx([0.5, 0.6, 0.625, 0.6, 0.55])
    assert (found.score <= found.score_ideal + 1e-12).all()


def test_constant_expectations_have_no_correlation():
    found = calibrate(torch.zeros(6), torch.rand(6), torch.zeros(6))
    assert found.correlation is None
    assert found.rank_correlation is None
    assert len(found.bins) == 1
    assert "null" in dump_json(found.to_dict())


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="of one length"):
        calibrate(torch.zeros(2), torch.zeros(3), torch.zeros(3))
