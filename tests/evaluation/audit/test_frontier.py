"""Domination and the frontier against their definitions."""

from __future__ import annotations

import torch

from hypergen.evaluation.audit.frontier import Cloud, dominates, find_dominated, frontier
from hypergen.evaluation.audit.resample import Resampler


def cloud(points, tasks=None, kind="x"):
    quality, novelty = torch.tensor(points).double().unbind(1)
    tasks = torch.zeros(len(points)).long() if tasks is None else torch.tensor(tasks)
    return Cloud(kind, kind, quality, {"plain": novelty, "canonical": novelty}, tasks)


def test_dominated_is_as_good_in_both_and_worse_in_one():
    baseline = cloud([(0.9, 0.5), (0.5, 2.0)])
    points = cloud([(0.9, 0.5), (0.9, 0.4), (0.8, 0.5), (0.95, 0.1), (0.5, 1.9), (0.6, 1.0)])
    found = dominates(baseline, points, "plain", same_task=False)
    assert found.tolist() == [False, True, True, False, True, False]


def test_tasks_are_compared_with_their_own():
    baseline = cloud([(0.9, 0.5)], [1])
    points = cloud([(0.8, 0.4), (0.8, 0.4)], [1, 2])
    assert dominates(baseline, points, "plain", same_task=True).tolist() == [True, False]
    weights = torch.ones(10, 2)
    found = find_dominated(
        points, points, [baseline], "plain", (weights, weights), Resampler(0, 10), same_task=True
    )
    assert found.samples.value == 1  # of those whose task the baseline has
    assert found.by == {"x": 0.5}


def test_reordered_units_are_not_new_as_they_are():
    points = cloud([(0.8, 0.4)] * 2)
    matched = cloud([(0.9, 3.0)], kind="average_canonical")
    other = cloud([(0.1, 0.1)], kind="average")
    weights = torch.ones(10, 2)
    both = (weights, weights)
    for axis, share in (("plain", 0), ("canonical", 1)):
        found = find_dominated(points, points, [matched, other], axis, both, Resampler(0, 10))
        assert found.samples.value == share


def test_the_frontier_is_what_nothing_dominates():
    generator = torch.Generator().manual_seed(0)
    points = cloud(torch.rand(60, 2, generator=generator).tolist())
    line = frontier([points], "plain")
    best = ~dominates(points, points, "plain", same_task=False)
    expected = torch.stack([points.novelty["plain"], points.quality], dim=1)[best]
    expected = expected[expected[:, 0].argsort()]
    torch.testing.assert_close(line, expected)
    assert (line[1:, 1] < line[:-1, 1]).all()
