from __future__ import annotations

import dataclasses

import pytest
import torch
from reading_zoo import plain_rows, write_rows

from hypergen.errors import UsageError
from hypergen.zoo.reading import (
    filter_metric,
    metric_names,
    metric_values,
    sampling_weights,
    top_fraction,
)


@pytest.fixture
def graded(tmp_path):
    rows = plain_rows(runs=9, steps=4)
    rows[0] = dataclasses.replace(rows[0], metrics={})
    return write_rows(tmp_path / "zoo", rows)


def test_metrics_are_named_by_split(graded):
    assert metric_names(graded) == ["test.accuracy"]
    values = metric_values(graded, "test.accuracy")
    assert torch.tensor(values).isnan().tolist() == [True] + [False] * 35
    with pytest.raises(UsageError, match=r"Did you mean 'test\.accuracy'"):
        metric_values(graded, "test.acuracy")


def test_bounds_include_themselves_and_drop_what_has_no_value(graded):
    kept = filter_metric(graded, "test.accuracy", at_least=0.3, at_most=0.53)
    assert {row.run for row in kept} == {"run3", "run4", "run5"}
    assert graded.rows[0] not in filter_metric(graded, "test.accuracy", at_least=-9).rows
    with pytest.raises(UsageError, match=r"go from 0\.01 to 0\.83"):
        filter_metric(graded, "test.accuracy", at_least=2)
    with pytest.raises(UsageError, match="at_least"):
        filter_metric(graded, "test.accuracy")


def test_the_best_of_every_task_are_kept(graded):
    kept = top_fraction(graded, "test.accuracy", 1 / 3)
    assert {row.run for row in kept} == {"run6", "run7", "run8"}  # the last of each task
    assert len(kept) == 12
    overall = top_fraction(graded, "test.accuracy", 4 / 35, per="zoo")
    assert {row.run for row in overall} == {"run8"}
    lowest = top_fraction(graded, "test.accuracy", 1e-9, best="low")
    assert [(row.run, row.step) for row in lowest] == [("run0", 1), ("run1", 0), ("run2", 0)]
    assert len(top_fraction(graded, "test.accuracy", 1.0)) == 35
    with pytest.raises(UsageError, match="fraction"):
        top_fraction(graded, "test.accuracy", 0)


def test_weights_are_a_softmax_without_the_unknown(graded):
    weights = sampling_weights(graded, "test.accuracy", temperature=0.1)
    values = torch.tensor(metric_values(graded, "test.accuracy"))
    expected = torch.where(values.isnan(), 0.0, (values.nan_to_num() / 0.1).exp())
    assert torch.allclose(weights, expected / expected.sum())
    assert weights[0] == 0
    low = sampling_weights(graded, "test.accuracy", temperature=0.1, best="low")
    assert int(low.argmax()) == 1
    fair = sampling_weights(graded, "test.accuracy", temperature=1e6)
    assert torch.allclose(fair[1:], torch.full((35,), 1 / 35, dtype=torch.float64), rtol=1e-5)
    with pytest.raises(UsageError, match="temperature"):
        sampling_weights(graded, "test.accuracy", temperature=0)
