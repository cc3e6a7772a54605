"""Deep networks of equal blocks: each block once, with the number of its repetitions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergen.conditions.graph.graph import ModuleGraph


@dataclass(frozen=True)
class Reduction:
    """Which nodes of a graph an encoder reads.

    Attributes:
        kept: Numbers of the K nodes that are read, ascending.
        place: `[N]`, for each node of the graph the position among `kept` of the one that stands
            for it.
        edges: `[2, E]` edges among those positions; none leads back.
        copies: `[K]`, how many nodes each stands for.
        copy: `[N]`, which repetition each node of the graph is in; 0 outside of any.
    """

    kept: Tensor
    place: Tensor
    edges: Tensor
    copies: Tensor
    copy: Tensor


def reduce_graph(graph: ModuleGraph, compress: bool) -> Reduction:
    """Leaves out all repetitions of a block but the first.

    Edges of the others are led to the nodes that stand for theirs; those that would lead back
    (from the end of one repetition to the start of the next) are left out, so that the result is
    again a graph of data flow.

    Args:
        graph: The graph.
        compress: Without it, every node stands for itself.
    """
    count = len(graph)
    ends = [(e.source, e.target) for e in graph.edges]
    edges = torch.tensor(ends, dtype=torch.int64, device="cpu").reshape(-1, 2).T.contiguous()
    nodes = torch.arange(count, device="cpu")
    zeros = torch.zeros(count, dtype=torch.int64, device="cpu")
    if not compress or all(node.block < 0 for node in graph.nodes):
        return Reduction(nodes, nodes, edges, torch.ones_like(nodes), zeros)
    stands, copy = nodes.clone(), zeros
    for copies in graph.blocks.values():
        table = torch.tensor(copies, device="cpu")
        stands[table] = table[0].expand_as(table)
        copy[table] = torch.arange(len(copies), device="cpu")[:, None].expand_as(table)
    kept, place, copies_of = stands.unique(return_inverse=True, return_counts=True)
    led = place[edges]
    led = led[:, led[0] < led[1]].unique(dim=1)
    return Reduction(kept, place, led, copies_of, copy)
