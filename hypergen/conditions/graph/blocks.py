"""Repeated blocks: modules side by side whose parts of the graph are equal."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from torch import nn

from hypergen.conditions.graph.graph import ModuleGraph


def mark_blocks(graph: ModuleGraph, module: nn.Module) -> ModuleGraph:
    """Says of each node in which repeated block it is.

    Two submodules of one parent are repetitions of a block if their nodes are the same: kinds,
    operations, parameters' shapes, names within the submodule, and all edges among them. The
    outermost repetition counts; within it nothing is marked again.
    """
    owners: dict[str, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        if node.kind in ("parameter", "operation"):
            path = node.name.rpartition(".")[0] if node.kind == "parameter" else node.name
            parts = path.split(".") if path else []
            for depth in range(1, len(parts) + 1):
                owners.setdefault(".".join(parts[:depth]), []).append(i)
    into: dict[int, list[tuple[int, str]]] = {}
    for edge in graph.edges:
        into.setdefault(edge.target, []).append((edge.source, edge.slot))
    marks: dict[int, tuple[int, int, int]] = {}
    count = 0
    todo = [("", module)]
    while todo:
        path, parent = todo.pop(0)
        groups: dict[str, list[str]] = {}
        children = []
        for name, child in parent.named_children():
            full = f"{path}.{name}" if path else name
            members = owners.get(full, [])
            if members:
                groups.setdefault(_signature(graph, full, members, into), []).append(full)
                children.append((full, child))
        repeated = set()
        for same in groups.values():
            # A single layer twice is no block worth the name.
            if len(same) > 1 and len(owners[same[0]]) > 3:
                for copy, full in enumerate(same):
                    repeated.add(full)
                    for place, i in enumerate(owners[full]):
                        marks[i] = (count, copy, place)
                count += 1
        todo += [(full, child) for full, child in children if full not in repeated]
    nodes = tuple(
        replace(n, block=marks[i][0], copy=marks[i][1], place=marks[i][2]) if i in marks else n
        for i, n in enumerate(graph.nodes)
    )
    return replace(graph, nodes=nodes)


def _signature(
    graph: ModuleGraph, path: str, members: list[int], into: dict[int, list[tuple[int, str]]]
) -> str:
    place = {i: k for k, i in enumerate(members)}
    digest = hashlib.sha256()
    for i in members:
        node = graph.nodes[i]
        shape = node.shape if node.kind == "parameter" else ()
        edges = [(place.get(source, -1), slot) for source, slot in into.get(i, ())]
        inner = node.name[len(path) :]
        digest.update(repr((node.kind, node.op, inner, shape, len(node.ties), edges)).encode())
    return digest.hexdigest()
