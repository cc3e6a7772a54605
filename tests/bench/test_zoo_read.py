"""The benchmark of the reader compares equal numbers and reports every key."""

from __future__ import annotations

import pytest
import torch

from hypergen import bench
from hypergen.bench import zoo, zoo_build, zoo_read


def test_every_way_has_a_row(monkeypatch):
    monkeypatch.setattr(zoo_read, "CASES", {"50 weights": (50, 16, 4)})
    result = zoo_read.run(runs=1)
    assert [row["case"].rpartition(", ")[2] for row in result["rows"]] == [
        "against memcpy",
        "against memcpy",
        "against torch.load per sample",
    ]
    for row in result["rows"]:
        assert row["ratio"] == row["reference"] / row["ours"]
    assert "over bound" in bench.table(result)


def test_ways_that_differ_are_noticed(monkeypatch):
    def wrong(self, indices=None, out=None):
        return torch.zeros(len(indices), 50)

    monkeypatch.setattr(zoo_read.Zoo, "flat", wrong)
    with pytest.raises(AssertionError):
        zoo_read.case("50 weights", 50, 16, 4, runs=1)


def test_the_benchmark_has_both_halves(monkeypatch):
    monkeypatch.setattr(zoo_build, "run", lambda: {"rows": [1]})
    monkeypatch.setattr(zoo_read, "run", lambda: {"rows": [2]})
    assert zoo.run() == {"name": "zoo", "rows": [1, 2]}
