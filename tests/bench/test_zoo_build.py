"""The benchmark of the builder compares equal trainings and reports every key."""

from __future__ import annotations

import pytest

from hypergen.bench import zoo_build


def test_both_ways_train_the_same_networks():
    row = zoo_build.case(batch_size=32, steps=60, models=12, references=3, runs=2)
    assert {"case", "metric", "ours", "reference", "ratio", "bound", "over_bound"} <= set(row)
    assert row["metric"] == "models/s"
    assert row["ratio"] == pytest.approx(row["ours"] / row["reference"])
    assert row["over_bound"] == pytest.approx(row["bound"] / row["ours"])
    accuracy = row["accuracy"]
    assert accuracy["reference"]["networks"] == 6
    assert accuracy["ours"]["mean"] > 0.7
    assert abs(accuracy["reference"]["mean"] - accuracy["ours, same networks"]["mean"]) < 0.01


def test_ways_that_differ_are_noticed(monkeypatch):
    original = zoo_build.train_one

    def worse(net, start, member, problem, steps, batch_size):
        return original(net, start, member, problem, 2, batch_size)

    monkeypatch.setattr(zoo_build, "train_one", worse)
    with pytest.raises(AssertionError):
        zoo_build.case(batch_size=32, steps=40, models=4, references=2, runs=1)


def test_every_batch_size_has_a_row(monkeypatch):
    monkeypatch.setattr(zoo_build, "BATCHES", {4: 2, 8: 1})
    monkeypatch.setattr(zoo_build, "MODELS", 4)
    monkeypatch.setattr(zoo_build, "REFERENCES", 2)
    result = zoo_build.run(runs=1)
    assert result["name"] == "zoo_build"
    assert len(result["rows"]) == 2
