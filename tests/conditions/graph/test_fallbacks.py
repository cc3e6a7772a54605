"""The same network by the ways that `trace` falls back to."""

from __future__ import annotations

import pytest
import torch
from graph_models import MODELS, mixtral
from graph_networks import NETWORKS, Tied, mlp, resnet_like
from torch import nn

from hypergen.conditions.graph import coverage, trace
from hypergen.errors import ConditionError


def named(graph):
    return {graph.nodes[i].name: graph.nodes[i].op for i in graph.parameters.values()}


@pytest.mark.parametrize("name", ["mlp", "resnet", "unet", "tied"])
def test_export_and_fx_see_the_same_parameters_in_the_same_roles(name):
    model = NETWORKS[name]().requires_grad_(False)
    followed = trace(model)
    for method in ("export", "fx"):
        graph = trace(model, method=method)
        assert graph.method == method
        assert named(graph) == named(followed)
        assert coverage(model, graph=graph).complete


def test_export_sees_the_same_operations():
    graphs = [trace(resnet_like(), method=m) for m in ("dispatch", "export")]
    ops = [[n.op for n in g.nodes if n.kind == "operation"] for g in graphs]
    assert ops[0] == ops[1]
    assert len(graphs[0].edges) == len(graphs[1].edges)


def test_export_follows_a_transformer_without_memory():
    with torch.device("meta"):
        model = MODELS["llama"]()
    graph = trace(model, method="export")
    assert named(graph) == named(trace(model))


def test_fx_needs_no_example():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, things):
            return self.layer(things["x"])

    graph = trace(Pair())
    assert graph.method == "fx"
    assert list(graph.parameters) == ["layer.weight", "layer.bias"]


def test_tied_parameters_are_one_node_in_every_way():
    for method in ("export", "fx"):
        graph = trace(Tied(), method=method)
        assert len(graph.uses(graph.parameters["embedding.weight"])) == 2


def test_a_way_that_does_not_exist_is_an_error():
    with pytest.raises(ConditionError, match=r"unknown method 'jit'.*dispatch"):
        trace(mlp(), method="jit")


def test_experts_that_are_picked_by_numbers_are_exported():
    model = mixtral()
    graph = trace(model)
    assert graph.method == "export"
    assert coverage(model, graph=graph).complete
    roles = named(graph)
    assert any("experts" in name for name in roles)
