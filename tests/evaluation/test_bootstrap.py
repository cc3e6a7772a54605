"""Bootstrap intervals: coverage, pairing, descriptions within tasks, seeds."""

from __future__ import annotations

import math

import pytest
import torch

from hypergen.evaluation.bootstrap import Bootstrap, Scores, gap_closed


def ragged() -> Scores:
    return Scores(torch.tensor([1.0, 0.0, 0.5, 0.2]), torch.tensor([2, 2, 0, 2]), 4)


def test_means_and_spread_are_over_descriptions_then_tasks():
    scores = ragged()
    assert scores.counts.tolist() == [1, 0, 3, 0]
    assert scores.per_task[0] == 0.5
    assert scores.per_task[2] == pytest.approx(0.4)
    assert scores.per_task[[1, 3]].isnan().all()
    assert scores.mean == pytest.approx(0.45)
    assert scores.spread[2] == pytest.approx(torch.tensor([1.0, 0.0, 0.2]).std(correction=0))


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = torch.randn(400, generator=torch.Generator().manual_seed(1))
    bootstrap = Bootstrap(400, resamples=4000)
    low, high = bootstrap.interval(bootstrap.means(Scores.of(values)))
    half = 1.96 * float(values.std()) / 20
    assert low == pytest.approx(float(values.mean()) - half, abs=0.02)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.02)


def test_intervals_cover_the_truth_as_often_as_they_say():
    covered = 0
    for seed in range(200):
        values = torch.rand(60, generator=torch.Generator().manual_seed(seed))
        bootstrap = Bootstrap(60, resamples=400, seed=seed)
        low, high = bootstrap.interval(bootstrap.means(Scores.of(values)))
        covered += low <= 0.5 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_paired_difference_is_narrower_than_two_intervals():
    random = torch.Generator().manual_seed(0)
    a = torch.rand(50, generator=random)
    b = a - 0.02 + 0.01 * torch.rand(50, generator=random)
    bootstrap = Bootstrap(50)
    low, high = bootstrap.difference(Scores.of(a), Scores.of(b))
    single = bootstrap.interval(bootstrap.means(Scores.of(a)))
    assert 0 < low < high < 0.025
    assert high - low < 0.1 * (single[1] - single[0])


def test_descriptions_are_resampled_within_their_task():
    # All tasks alike, so that only the descriptions differ: tasks alone would give zero width.
    unit = torch.arange(30).repeat_interleave(4)
    values = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(30)
    bootstrap = Bootstrap(30, resamples=4000)
    low, high = bootstrap.interval(bootstrap.means(Scores(values, unit, 30)))
    half = 1.96 * 0.5 / math.sqrt(4 * 30)
    assert low == pytest.approx(0.5 - half, abs=0.02)
    assert high == pytest.approx(0.5 + half, abs=0.02)


def test_ragged_resamples_have_the_mean_of_the_scores_and_no_neighbours():
    scores = ragged()
    means = Bootstrap(4, resamples=3000).means(scores)
    means = means[means.isfinite()]
    assert means.min() >= 0
    assert means.max() <= 1
    constant = Scores(torch.tensor([0.25, 0.25, 0.25]), torch.tensor([0, 0, 2]), 3)
    assert set(Bootstrap(3).means(constant)[:50].nan_to_num(0.25).tolist()) == {0.25}


def test_chunks_do_not_change_the_interval(monkeypatch):
    unit = torch.arange(20).repeat_interleave(3)
    values = torch.rand(60, generator=torch.Generator().manual_seed(3))
    whole = Bootstrap(20, resamples=500).means(Scores(values, unit, 20))
    monkeypatch.setattr("hypergen.evaluation.bootstrap._CHUNK", 20 * 3 * 7)
    parts = Bootstrap(20, resamples=500).means(Scores(values, unit, 20))
    assert torch.equal(whole, parts)


def test_the_seed_decides():
    scores = Scores.of(torch.rand(9))
    first, again, other = (Bootstrap(9, 50, seed=s).means(scores) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_gap_closed_is_undefined_without_a_gap():
    assert float(gap_closed(0.9, 0.5, 1.0)) == pytest.approx(0.8)
    assert math.isnan(gap_closed(0.9, 0.5, 0.5))
    assert math.isnan(Bootstrap(3).interval(torch.full((4,), torch.nan))[0])


@pytest.mark.parametrize("wrong", [{"units": 0}, {"resamples": 0}, {"level": 1.0}])
def test_nothing_to_resample_is_an_error(wrong):
    with pytest.raises(ValueError, match="cannot resample"):
        Bootstrap(**{"units": 3, **wrong})
    with pytest.raises(ValueError, match="scores of 2 tasks"):
        Bootstrap(3).means(Scores.of(torch.zeros(2)))
