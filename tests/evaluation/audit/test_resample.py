"""Weighted statistics against plain ones, and the tests under hypotheses of known truth."""

from __future__ import annotations

import math

import pytest
import torch

from hypergen.evaluation.audit.resample import (
    NOTHING,
    Estimate,
    Resampler,
    median,
    permutation_test,
    weighted_mean,
    weighted_median,
)


def test_weights_count_how_often_whole_groups_are_drawn():
    groups = torch.tensor([7, 7, 3, 9, 9, 9])
    weights = Resampler(0, 50).weights(groups, "x")
    assert weights.shape == (50, 6)
    assert torch.equal(weights[:, 0], weights[:, 1])
    assert torch.equal(weights[:, 3], weights[:, 5])
    assert torch.equal(weights[:, [0, 2, 3]].sum(1), torch.full((50,), 3.0))
    assert torch.equal(weights, Resampler(0, 50).weights(groups, "x"))
    assert not torch.equal(weights, Resampler(0, 50).weights(groups, "y"))


def test_weighted_statistics_are_those_of_repeated_values():
    torch.manual_seed(0)
    values, weights = torch.randn(9), torch.randint(0, 4, (20, 9)).float()
    for row, mean, middle in zip(
        weights, weighted_mean(values, weights), weighted_median(values, weights), strict=True
    ):
        repeated = values.double().repeat_interleave(row.long())
        assert float(mean) == pytest.approx(float(repeated.mean()))
        assert float(middle) == float(repeated.median())
    assert float(median(values)) == float(values.double().median())


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    torch.manual_seed(1)
    covered = 0
    for i in range(100):
        values = torch.randn(40) + 1
        resampler = Resampler(i, 300)
        found = resampler.mean(values, resampler.weights(torch.arange(40), "x"))
        covered += found.low < 1 < found.high
    assert 86 <= covered <= 100


def test_a_ratio_of_nothing_is_nothing():
    resampler = Resampler(0, 10)
    none = torch.zeros(0)
    assert resampler.median_ratio(none, none[None], torch.ones(2), torch.ones(10, 2)) is NOTHING
    assert resampler.estimate(math.nan, torch.ones(10)) is NOTHING
    assert NOTHING.text() == "-"
    assert Estimate(1, 0.5, 2).to_dict() == {"value": 1, "ci95": [0.5, 2]}
    assert Estimate(1, 0.5, 2).text(".1f") == "1.0 (0.5 to 2.0)"


def test_the_permutation_test_is_exact_where_one_network_is_near_to_all():
    """A network that is nearest to every sample says nothing, however many samples there are."""
    runs = torch.arange(20)
    training = runs < 10
    hub = torch.zeros(500, dtype=torch.long)
    assert permutation_test(hub, runs, training, 0) == pytest.approx(0.5, abs=0.05)
    spread = torch.arange(10).repeat(50)  # ten different training networks
    assert permutation_test(spread, runs, training, 0) < 0.001
    assert permutation_test(spread + 10, runs, training, 0) > 0.99


def test_checkpoints_of_a_run_are_relabelled_together():
    runs = torch.arange(4).repeat_interleave(5)
    training = runs < 2
    nearest = torch.arange(10)  # all of the two training runs
    # Two of four runs: one labelling in six is as extreme.
    assert permutation_test(nearest, runs, training, 0) == pytest.approx(1 / 6, abs=0.04)
