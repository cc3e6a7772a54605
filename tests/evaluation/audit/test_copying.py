"""The copy test compares sets of equal size, whatever the sizes of runs."""

from __future__ import annotations

import torch

from hypergen.evaluation.audit.copying import _equally_many
from hypergen.evaluation.audit.geometry import measure
from hypergen.evaluation.audit.records import Networks
from hypergen.evaluation.audit.resample import Resampler
from hypergen.evaluation.audit.space import FlatSpace
from hypergen.zoo.networks import MLP


def test_whole_runs_are_drawn_where_they_are_small():
    runs = torch.arange(12).repeat_interleave(3)
    ours, theirs = _equally_many({"a": runs, "b": runs[:9]}, 9, 0)
    assert len(ours) == len(theirs) == 9
    assert torch.bincount(runs[ours]).unique().tolist() == [0, 3]
    assert theirs.tolist() == list(range(9))


def test_long_training_runs_are_no_sign_of_copies():
    spec = MLP(4, (3,), 2).spec()
    draws = torch.randn(280 + 24, spec.numel, generator=torch.Generator().manual_seed(0))
    samples, training, heldout = draws.split([64, 216, 24])
    found = measure(
        FlatSpace(spec, training),
        Networks.of(samples),
        Networks.of(training, torch.arange(4).repeat_interleave(54)),
        Networks.of(heldout, 4 + torch.arange(24)),
        Resampler(resamples=100),
    )
    assert 0.3 < found.copy_test.value < 0.7
