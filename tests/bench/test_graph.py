"""The benchmark of graph hypernetworks compares equal computations and reports every key."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hypergen import bench
from hypergen.bench import graph, graph_attention

KEYS = {"case", "metric", "ours", "reference", "ratio", "bound"}


def test_every_model_has_its_rows(monkeypatch):
    monkeypatch.setattr(graph, "MODELS", {"GPT-2": (lambda: nn.Linear(4, 4), (1, 4))})
    rows = graph.models(runs=1)
    assert len(rows) == 2 + len(graph.GENERATORS) + len(graph.KNOWN)
    assert sum("GHN-3-T: 366 ms" in row["case"] for row in rows) == 1 + len(graph.GENERATORS)
    assert torch.get_float32_matmul_precision() == "highest"
    for row in rows:
        assert set(row) >= KEYS
        assert row["ratio"] == row["reference"] / row["ours"]
    assert "over bound" in bench.table({"rows": rows})


def test_the_encoders_rows_hold_time_and_memory(monkeypatch):
    monkeypatch.setattr(graph, "NODES", (20,))
    monkeypatch.setattr(
        graph, "measure", lambda way, nodes: {"build": 1.0, "table": 3.0}.get(way, 5.0)
    )
    time, memory = graph.attention(runs=1)
    assert time["metric"] == "s"
    assert (memory["ours"], memory["reference"], memory["metric"]) == (2.0, 4.0, "MiB")


def test_an_encoder_that_differs_is_noticed(monkeypatch):
    monkeypatch.setattr(graph, "NODES", (20,))
    original = graph_attention.PairwiseBias.forward
    monkeypatch.setattr(
        graph_attention.PairwiseBias,
        "forward",
        lambda self, pairs: original(self, pairs) + 0.3 * pairs[:, None],
    )
    with pytest.raises(AssertionError):
        graph.attention(runs=1)


def test_a_step_has_a_row_for_one_and_for_four_networks(monkeypatch):
    monkeypatch.setattr(graph, "IMAGES", 4)
    monkeypatch.setattr(graph, "SIZE", 8)
    monkeypatch.setattr(graph, "NETWORKS", ((4, 1), (6, 1), (4, 2), (8, 1)))
    rows = graph.training(runs=1)
    assert [row["case"].split(", ")[1] for row in rows] == ["1 networks", "4 networks"]


def test_the_memory_of_a_process_is_measured(capsys):
    graph_attention.main("table", "8")
    assert float(capsys.readouterr().out) > 1
    assert torch.get_num_threads() >= 1
