"""The benchmark of documents compares equal sums, and reports every key."""

from __future__ import annotations

import shutil
import sys

import pytest
import torch

from hypergen import bench
from hypergen.bench import document, document_memory
from hypergen.errors import RunError

KEYS = {"case", "metric", "ours", "reference", "ratio", "bound"}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(document, "CHUNK", 6)


def test_both_layouts_have_rows():
    rows = document.adapters(16, 1, 3, False, runs=1)
    rows += document.adapters(16, 2, 3, True, runs=1)
    assert [row["metric"] for row in rows] == ["s", "kB", "s"]
    assert all(set(row) >= KEYS for row in rows)
    assert rows[1]["ratio"] == 8
    assert rows[2]["distance from the exact update"]["ours"] < 1e-3
    assert all(row["difference of two runs"]["ours"] == 0 for row in rows[::2])
    assert "values of the rank" in bench.table({"rows": rows})


def test_the_peer_s_sums_are_ours_and_its_sketch_is_random():
    case = document.Case(16, 2, 3, True)
    assert case.errors()["reference"] > case.errors()["ours"]
    first, second = case.reference()[0], case.reference()[0]
    assert not torch.equal(first, second)


@pytest.mark.parametrize("wrong", ["sums", "factors"])
def test_ways_that_differ_are_noticed(monkeypatch, wrong):
    case = document.Case(16, 1, 3, True)
    if wrong == "sums":
        monkeypatch.setattr(case.peer, "key", case.peer.key * 1.1)
    else:
        original = case.ours.factors
        monkeypatch.setattr(case.ours, "factors", lambda s: (original(s)[0] * 1.1, original(s)[1]))
    with pytest.raises(AssertionError):
        case.errors()


def test_a_run_that_draws_is_noticed(monkeypatch):
    case = document.Case(16, 1, 3, False)
    original = case.ours.factors
    monkeypatch.setattr(
        case.ours, "factors", lambda s: (original(s)[0] + torch.rand(()), original(s)[1])
    )
    with pytest.raises(AssertionError):
        case.repeats()


def test_reading_is_compared_on_the_same_tokens():
    made = document_memory.Reading()
    text = "".join(made.lines(256))
    assert made.encoder(text).mask.sum() == 256
    chunks = list(made.encoder._chunks(text, ""))
    assert torch.equal(torch.tensor(chunks), torch.cat(made.ids(256)))
    row = document.reading(tokens=256, runs=1)
    assert set(row) >= KEYS
    assert row["tokens per second"] == 256 / row["ours"]


def test_memory_is_reported(monkeypatch):
    peaks = {("build", 0): 100.0, ("stream", 9): 110.0, ("whole", 9): 150.0, ("stream", 3): 110.0}
    monkeypatch.setattr(document, "measure", lambda way, tokens: peaks[way, tokens])
    rows = document.memory(9, 3)
    assert [row["ratio"] for row in rows] == [5.0, 1.0]
    assert all(0 < row["state"] < 10 for row in rows)


def test_a_process_measures_itself(monkeypatch, capsys):
    for way in ("build", "stream", "whole"):
        document_memory.main(way, "200")
        assert float(capsys.readouterr().out) > 64
    with pytest.raises(KeyError):
        document_memory.main("wrong", "1")
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RunError, match=r"memory of 'stream' failed: no message"):
        document_memory.measure("stream", 1)


def test_every_part_is_run(monkeypatch):
    ran = []

    def adapters(width, documents, chunks, same, runs):
        ran.append((width, documents, chunks, same))
        return [{"case": f"emitted {width}"}] if documents == 1 and not same else []

    monkeypatch.setattr(document, "adapters", adapters)
    monkeypatch.setattr(document, "reading", lambda: {"case": "read"})
    monkeypatch.setattr(document, "memory", lambda: [{"case": "memory"}])
    rows = bench.run_benchmark("document")["rows"]
    cases = [row["case"] for row in rows]
    assert cases == ["read", "memory", "emitted 64", "emitted 256"]
    assert len(ran) == 12
