"""Overlaps by matrix products against sets, and the comparison at equal accuracy."""

from __future__ import annotations

import math

import pytest
import torch

from hypergen.evaluation.audit.overlap import compare, largest_overlap
from hypergen.evaluation.audit.records import Behaviour, Networks
from hypergen.evaluation.audit.resample import Resampler


def naive(predictions, tasks, training, answers):
    out = []
    for said, task in zip(predictions, tasks.tolist(), strict=True):
        mine = set((said != answers[task]).nonzero()[:, 0].tolist())
        best = 0.0
        for other in training:
            theirs = set((other != answers[task]).nonzero()[:, 0].tolist())
            best = max(best, len(mine & theirs) / max(1, len(mine | theirs)))
        out.append(best)
    return torch.tensor(out)


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("classes", [2, 5])
def test_overlaps_are_those_of_sets(tasks, classes, monkeypatch):
    generator = torch.Generator().manual_seed(tasks + classes)
    answers = torch.randint(classes, (tasks, 40), generator=generator).short()
    predictions = torch.randint(classes, (6, 40), generator=generator).short()
    training = torch.randint(classes, (9, 40), generator=generator).short()
    own = torch.randint(tasks, (6,), generator=generator)
    predictions[0] = answers[own[0]]  # one without a mistake
    predictions[1] = training[4]
    expected = naive(predictions, own, training, answers)
    found = largest_overlap(predictions, own, training, answers)
    torch.testing.assert_close(found, expected)
    assert float(found[0]) == 0
    assert float(found[1]) == 1
    monkeypatch.setattr("hypergen.evaluation.audit.overlap._NUMBERS", 1)
    torch.testing.assert_close(largest_overlap(predictions, own, training, answers), expected)


def wrong_at(rows, quality=None):
    """Networks that answer 1 at their wrong places, where 0 is right."""
    said = torch.zeros(len(rows), 100, dtype=torch.int16)
    for network, places in zip(said, rows, strict=True):
        network[list(places)] = 1
    tasks = torch.zeros(len(rows), dtype=torch.long)
    return Behaviour((said == 0).float().mean(1), said, tasks)


def test_worse_networks_do_not_look_new():
    """Half of the samples are much worse: only the others are compared, and they are alike."""
    training = wrong_at([range(i, i + 10) for i in range(0, 40, 10)])
    heldout = wrong_at([range(i + 5, i + 15) for i in range(0, 40, 4)])
    samples = wrong_at([range(i + 5, i + 15) for i in range(0, 40, 4)] + [range(99)] * 10)
    found = compared(samples, training, heldout)
    assert found.matched == 0.5
    assert found.excess.value == pytest.approx(0, abs=1e-9)
    assert found.samples.value < found.heldout.value  # which is what not matching would say
    assert sum(row["heldout"] for row in found.bins) == 10


def test_common_mistakes_are_an_excess():
    training = wrong_at([range(i, i + 10) for i in range(0, 40, 10)])
    heldout = wrong_at([range(i + 5, i + 15) for i in range(0, 40, 4)])
    found = compared(wrong_at([range(10)] * 10), training, heldout)
    assert found.excess.low > 0.3
    assert float(found.values["samples"].min()) == 1


def test_nothing_to_compare_with_is_nothing():
    training = wrong_at([range(10)])
    found = compared(wrong_at([range(50)] * 8), training, wrong_at([range(5)] * 8))
    assert math.isnan(found.excess.value)
    assert found.matched == 0


def compared(samples, training, heldout):
    groups = tuple(Networks.of(torch.zeros(len(b.quality), 1)) for b in (samples, heldout))
    answers = torch.zeros(1, 100, dtype=torch.int16)
    return compare(samples, training, heldout, groups, answers, Resampler(0, 100))
