"""Benchmarks run, have the promised keys, and compare equal computations."""

from __future__ import annotations

import argparse

import pytest

from hypergen import bench
from hypergen.bench import core
from hypergen.errors import UsageError


def test_core_compares_equal_results_and_reports_every_key(monkeypatch):
    monkeypatch.setattr(core, "SIZES", {"8-6-3": (8, 6, 3)})
    result = core.run(runs=2)
    cases = [row["case"] for row in result["rows"]]
    assert result["name"] == "core"
    assert len(cases) == 4
    assert sum("loop" in c for c in cases) == 2
    assert sum("vmap" in c for c in cases) == 2
    for row in result["rows"]:
        assert {"case", "metric", "ours", "reference", "ratio", "bound"} <= set(row)
        assert row["metric"] == "s"
        assert row["ratio"] == row["reference"] / row["ours"]


def test_core_notices_ways_that_differ(monkeypatch):
    original = core.functional_call

    def wrong(model, weights, args):
        return original(model, weights, args) * 1.1

    monkeypatch.setattr(core, "functional_call", wrong)
    with pytest.raises(AssertionError):
        core.case((8, 6, 3), conditions=4, samples=2, runs=1)


def test_unknown_benchmark_names_the_nearest():
    with pytest.raises(UsageError, match="core"):
        bench.bench_command(argparse.Namespace(name="cor", json=None))
