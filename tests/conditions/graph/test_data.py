"""Graphs as PyG data, distances, and files."""

from __future__ import annotations

import warnings

import pytest
import torch
from graph_networks import Tied, mlp, resnet_like, volumes
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen._utils.io import load_safetensors, load_safetensors_metadata, save_safetensors
from hypergen.conditions.graph import (
    ModuleGraph,
    dense_distances,
    graph_tensors,
    load_data,
    save_data,
    to_data,
    trace,
)
from hypergen.conditions.graph.data import padded
from hypergen.conditions.graph.distances import forward_distances
from hypergen.conditions.graph.vocabulary import BUCKETS, KNOWN, SIZE, TOTAL, number
from hypergen.errors import RunError


@pytest.fixture(scope="module", autouse=True)
def pyg():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the import compiles with the deprecated torch.jit
        import torch_geometric.data

    return torch_geometric.data


def test_the_tensors_say_what_the_graph_says():
    graph = trace(resnet_like())
    data = to_data(graph)
    assert data.num_nodes == len(graph)
    assert data.validate()
    for i, node in enumerate(graph.nodes):
        assert int(data.op[i]) == number(node.op)
        if node.kind == "parameter":
            assert int(data.shape[i].prod()) == torch.Size(node.shape).numel()
            assert int(data.parameter[i]) == list(graph.parameters).index(node.name)
        else:
            assert int(data.parameter[i]) == -1
    assert data.edge_index.T.tolist() == [[e.source, e.target] for e in graph.edges]
    assert torch.equal(data.log_shape, data.shape.float().log())


def test_equal_networks_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        save_data(tmp_path / name, trace(resnet_like(), cache=False))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_batch_shifts_edges_and_nothing_else(pyg):
    graphs = [trace(mlp()), trace(resnet_like()), trace(Tied())]
    batch = pyg.Batch.from_data_list([to_data(g) for g in graphs])
    start = 0
    for row, graph in enumerate(graphs):
        own = graph_tensors(graph)
        inside = batch.batch == row
        for key in ("kind", "op", "shape", "parameter", "block", "block_copy", "block_place"):
            assert torch.equal(batch[key][inside], own[key]), key
        edges = batch.edge_index[:, inside[batch.edge_index[0]]]
        assert torch.equal(edges - start, own["edge_index"])
        start += len(graph)
    assert [d.hash for d in batch.to_data_list()] == [g.hash for g in graphs]


def test_distances_of_a_batch_are_those_of_each_graph_padded(pyg):
    graphs = [trace(mlp()), trace(resnet_like())]
    datas = [to_data(g, cap=9) for g in graphs]
    forward, backward, mask = dense_distances(pyg.Batch.from_data_list(datas))
    assert mask.sum(1).tolist() == [len(g) for g in graphs]
    for row, (graph, data) in enumerate(zip(graphs, datas, strict=True)):
        n = len(graph)
        alone, back, full = dense_distances(data)
        assert full.all()
        assert torch.equal(forward[row, :n, :n], alone[0])
        assert torch.equal(backward[row, :n, :n], back[0])
        assert (forward[row, n:] == 10).all()
    assert torch.equal(forward.transpose(1, 2), backward)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.data())
def test_distances_are_those_of_a_breadth_first_search(count, data):
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    cap = data.draw(st.integers(1, 5))
    found = forward_distances(torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T, count, cap)
    for start in range(count):
        seen, front, steps = {start: 0}, {start}, 0
        while front:
            steps += 1
            front = {b for a, b in edges if a in front and b not in seen}
            seen.update(dict.fromkeys(front, steps))
        expected = [min(seen[i], cap) if i in seen else cap + 1 for i in range(count)]
        assert found[start].tolist() == expected


@given(st.lists(st.integers(1, 9), max_size=6))
def test_padded_shapes_keep_their_size(shape):
    assert len(padded(tuple(shape))) == 4
    assert torch.Size(padded(tuple(shape))).numel() == torch.Size(shape).numel()


def test_a_kernel_of_a_volume_has_four_sizes():
    graph = trace(volumes())
    row = graph_tensors(graph)["shape"][graph.parameters["0.weight"]]
    assert row.tolist() == [4, 1, 3, 9]


def test_what_is_saved_is_what_is_loaded(tmp_path):
    graph = trace(resnet_like())
    graph.save(tmp_path / "graph.json")
    assert ModuleGraph.load(tmp_path / "graph.json") == graph
    save_data(tmp_path / "graph.safetensors", graph, cap=7)
    loaded, data = load_data(tmp_path / "graph.safetensors")
    assert loaded == graph
    fresh = to_data(graph, cap=7)
    assert set(data.keys()) == set(fresh.keys())
    assert all(torch.equal(data[k], fresh[k]) for k in graph_tensors(graph))


def test_damaged_files_are_refused(tmp_path):
    graph = trace(mlp())
    graph.save(tmp_path / "g.json")
    text = (tmp_path / "g.json").read_text()
    (tmp_path / "g.json").write_text(text.replace('"0.weight"', '"9.weight"'))
    with pytest.raises(RunError, match=r"g\.json.*hash"):
        ModuleGraph.load(tmp_path / "g.json")
    (tmp_path / "g.json").write_text('{"format": 99}')
    with pytest.raises(RunError, match=r"g\.json.*format 99"):
        ModuleGraph.load(tmp_path / "g.json")
    save_data(tmp_path / "g.safetensors", graph)
    tensors = load_safetensors(tmp_path / "g.safetensors")
    metadata = load_safetensors_metadata(tmp_path / "g.safetensors")
    save_safetensors(tmp_path / "v.safetensors", tensors, {**metadata, "vocabulary": "99"})
    with pytest.raises(RunError, match="vocabulary 99"):
        load_data(tmp_path / "v.safetensors")
    del tensors["op"]
    save_safetensors(tmp_path / "t.safetensors", tensors, metadata)
    with pytest.raises(RunError, match="does not hold the tensors"):
        load_data(tmp_path / "t.safetensors")


def test_the_vocabulary_is_open_and_its_numbers_are_fixed():
    assert len(KNOWN) <= SIZE
    assert (number("input"), number("linear"), number("attention")) == (0, 2, 7)
    unknown = number("an operation of tomorrow")
    assert SIZE <= unknown < TOTAL == SIZE + BUCKETS
    assert unknown == number("an operation of tomorrow")
    assert len({number(f"op {i}") for i in range(200)}) > BUCKETS // 2
