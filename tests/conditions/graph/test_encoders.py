"""Graph encoders: equal to their definitions, whatever they are batched with."""

from __future__ import annotations

import pytest
import torch
from graph_networks import resnet_like
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError
from hypergen.conditions import ConditionEncoder, FusedEncoder, HashingEncoder
from hypergen.conditions.graph import Edge, ModuleGraph, Node, trace
from hypergen.conditions.graph.batch import GraphBatch, distance_pairs, encode_graph, pair_count
from hypergen.conditions.graph.compress import reduce_graph
from hypergen.conditions.graph.distances import forward_distances
from hypergen.conditions.graph.encoder import GraphEncoder, make_encoder
from hypergen.conditions.graph.features import BUCKETS, BucketEmbedding, NodeFeatures, bucket
from hypergen.conditions.graph.gated import GatedGraphNetwork
from hypergen.conditions.graph.transformer import DistanceBias, GraphTransformer


@st.composite
def graphs(draw: st.DrawFn, most: int = 12) -> ModuleGraph:
    """Graphs of data flow, of operations and parameters."""
    count = draw(st.integers(2, most))
    ops = ["linear", "relu", "add", "something unknown"]
    nodes = [
        Node("operation", draw(st.sampled_from(ops)), f"n{i}")
        if draw(st.booleans())
        else Node("parameter", "linear.weight", f"p{i}", (draw(st.integers(1, 999)), 4))
        for i in range(count)
    ]
    pairs = [(i, j) for j in range(count) for i in range(j)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=2 * count))
    edges = [Edge(i, j, "input") for i, j in sorted(chosen, key=lambda e: (e[1], e[0]))]
    return ModuleGraph(tuple(nodes), tuple(edges))


def encoder(name: str) -> nn.Module:
    torch.manual_seed(0)
    return make_encoder({"name": name, "dim": 16, "layers": 2, "depth": 1.0})


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_depth_rises_along_edges_and_parameters_stand_where_they_are_read(graph):
    depth = encode_graph(graph).depth.tolist()
    assert all(0 <= d <= 1 for d in depth)
    for edge in graph.edges:
        assert depth[edge.source] <= depth[edge.target] + 1e-6


def test_depth_tells_parameters_of_one_role_and_size_apart():
    graph = trace(nn.Sequential(*[nn.Linear(8, 8) for _ in range(24)]), (2, 8))
    batch = GraphBatch.of(graph)
    at = [i for i, n in enumerate(graph.nodes) if n.op == "linear.weight"]
    assert batch.depth[0, at].unique().numel() == 24
    torch.manual_seed(0)
    near = {}
    for depth in (0.0, 1.0):
        with torch.no_grad():
            found = NodeFeatures(32, depth).eval()(batch)[0, at]
        near[depth] = torch.nn.functional.cosine_similarity(found[1:], found[:-1]).mean()
    assert float(near[0.0]) > 0.9 > float(near[1.0])
    with pytest.raises(ConditionError, match="depth=-1"):
        make_encoder({"name": "gated", "depth": -1.0})


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_the_table_is_the_network_on_every_pair(graph):
    torch.manual_seed(0)
    bias = DistanceBias(heads=4, dim=8, cap=5)
    batch = GraphBatch.of(graph, cap=5)
    edges = encode_graph(graph, 5).reduction.edges
    ahead = forward_distances(edges, len(graph), 5).long()
    torch.testing.assert_close(
        bias(batch.pairs)[0].permute(1, 2, 0), bias.of_distances(ahead, ahead.T)
    )


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_pairs_of_distances_can_be_told_apart(graph):
    edges = encode_graph(graph).reduction.edges
    ahead = forward_distances(edges, len(graph), 3).long()
    pairs = distance_pairs(ahead.to(torch.uint8), 3).long()
    told = {(int(a), int(b)): int(p) for a, b, p in zip(
        ahead.flatten(), ahead.T.flatten(), pairs.flatten(), strict=True
    )}  # fmt: skip
    assert len(set(told.values())) == len(told)
    assert max(told.values()) < pair_count(3) - 1


@pytest.mark.parametrize("name", ["gated", "transformer"])
@settings(max_examples=15, deadline=None)
@given(st.lists(graphs(), min_size=2, max_size=3))
def test_what_a_graph_is_batched_with_does_not_matter(name, many):
    network = encoder(name)
    with torch.no_grad():
        together = network(GraphBatch.of(many))
        for row, graph in zip(together, many, strict=True):
            alone = network(GraphBatch.of(graph))[0]
            torch.testing.assert_close(row[: len(graph)], alone, rtol=1e-4, atol=1e-5)
            assert not bool(row[len(graph) :].any())


def one_node_at_a_time(network: GatedGraphNetwork, graph: ModuleGraph) -> Tensor:
    """GHN-2's gated network as it is written in the paper."""
    batch = GraphBatch.of(graph, network.cap)
    x = list(network.features(batch)[0])
    ahead = forward_distances(encode_graph(graph).reduction.edges, len(x), network.cap).tolist()
    for _ in range(network.rounds):
        for order in (range(len(x)), reversed(range(len(x)))):
            order = list(order)
            for v in order:
                message = torch.zeros_like(x[v])
                for u in range(len(x)):
                    d = ahead[u][v] if order[0] == 0 else ahead[v][u]
                    if d == 1:
                        message = message + network.near(x[u])
                    elif 1 < d <= network.cap:
                        message = message + network.far(x[u]) / d
                x[v] = network.gru(message[None], x[v][None])[0]
    return network.norm(torch.stack(x))


@settings(max_examples=15, deadline=None)
@given(graphs())
def test_level_by_level_is_node_by_node(graph):
    network = encoder("gated")
    with torch.no_grad():
        torch.testing.assert_close(
            network(GraphBatch.of(graph))[0], one_node_at_a_time(network, graph)
        )


@pytest.mark.parametrize("name", ["gated", "transformer"])
def test_every_node_sees_what_comes_before_and_after(name):
    torch.manual_seed(0)
    chain = [nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)]
    other = [nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)]
    network = encoder(name)
    with torch.no_grad():
        first, second = network(GraphBatch.of([trace(nn.Sequential(*c)) for c in (chain, other)]))
    assert float((first - second).abs().amax(-1).min()) > 1e-5


def deep(blocks: int) -> nn.Module:
    body = [nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)) for _ in range(blocks)]
    return nn.Sequential(nn.Linear(4, 8), nn.Sequential(*body), nn.Linear(8, 3))


def test_repeated_blocks_are_read_once_with_their_number():
    graph = trace(deep(5))
    whole, once = GraphBatch.of(graph), GraphBatch.of(graph, compress=True)
    per_block = len(graph.blocks[0][0])
    assert whole.op.shape[1] - once.op.shape[1] == 4 * per_block
    assert int(once.copies.max()) == 5
    assert GraphBatch.of(trace(deep(50)), compress=True).op.shape == once.op.shape
    reduction = reduce_graph(graph, True)
    first, last = graph.blocks[0][0], graph.blocks[0][-1]
    assert reduction.place[first].tolist() == reduction.place[last].tolist()
    assert set(reduction.copy[last].tolist()) == {4}
    assert bool((reduction.edges[0] < reduction.edges[1]).all())
    same = reduce_graph(trace(resnet_like()), False)
    assert same.kept.tolist() == same.place.tolist()


def test_compressed_embeddings_still_tell_depths_apart():
    torch.manual_seed(0)
    network = GraphEncoder({"name": "transformer", "dim": 16, "heads": 2}, compress=True)
    pooled = network([trace(deep(3)), trace(deep(12))]).pooled
    assert not torch.allclose(pooled[0], pooled[1], atol=1e-3)


def test_sizes_share_buckets_by_their_logarithm():
    assert bucket(torch.tensor([0, 1, 2, 4, 8])).tolist() == [0, 1, 5, 9, 13]
    assert bucket(torch.tensor([1000, 1024, 1050])).unique().numel() == 1
    assert int(bucket(torch.tensor([2**62]))) == BUCKETS - 1


def test_sizes_that_training_has_not_met_are_read_as_the_nearest_that_it_has():
    table = BucketEmbedding(1, 4)
    mask = torch.ones(1, 2, dtype=torch.bool)

    def read(size: int) -> Tensor:
        return table.eval()(torch.tensor([[[size], [size]]]), mask)[0, 0]

    fresh = read(64)
    table.train()(torch.tensor([[[16], [128]]]), mask)
    assert torch.equal(read(1_000_000), read(128))
    assert torch.equal(read(2), read(16))
    assert torch.equal(read(100), read(128))
    assert not torch.equal(read(64), fresh) or torch.equal(fresh, read(128))
    assert not torch.equal(read(0), read(16))


def test_padding_is_not_taken_for_something_met():
    table = BucketEmbedding(1, 4)
    table.train()(torch.tensor([[[16], [999]]]), torch.tensor([[True, False]]))
    assert int(table.seen.sum()) == 1


def test_graphs_and_texts_are_one_condition():
    torch.manual_seed(0)
    options = {"name": "gated", "dim": 16}
    fused = FusedEncoder({"graph": GraphEncoder(options), "text": HashingEncoder(8)}, dim=12)
    many = [trace(resnet_like()), trace(deep(2))]
    condition = fused({"graph": many, "text": ["sharpen", "blur the picture"]})
    assert (len(condition), condition.dim) == (2, 12)
    other = fused({"graph": many, "text": ["sharpen", "turn it"]})
    torch.testing.assert_close(other.pooled[0], condition.pooled[0])
    assert not torch.allclose(other.pooled[1], condition.pooled[1])
    rebuilt = ConditionEncoder.from_dict(fused.to_dict())
    rebuilt.load_state_dict(fused.state_dict())
    again = rebuilt({"graph": many, "text": ["sharpen", "blur the picture"]})
    torch.testing.assert_close(again.tokens, condition.tokens)


def test_gradients_reach_the_features():
    for network in (encoder("gated"), encoder("transformer")):
        assert isinstance(network, GatedGraphNetwork | GraphTransformer)
        network(GraphBatch.of(trace(deep(2)))).square().sum().backward()
        missing = [n for n, p in network.named_parameters() if p.grad is None]
        assert missing == []


def test_wrong_batches_are_named():
    with pytest.raises(ConditionError, match="no graph given"):
        GraphBatch.of([])
    with pytest.raises(ConditionError, match="graph 1 is a Linear"):
        GraphBatch.of([trace(deep(1)), nn.Linear(2, 2)])
    with pytest.raises(ConditionError, match="cap is at most 120"):
        GraphBatch.of(trace(deep(1)), cap=200)
    with pytest.raises(ConditionError, match=r"GraphBatch\.of"):
        GraphEncoder()(GraphBatch.of(trace(deep(1)), cap=7))
