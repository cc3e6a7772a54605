"""Architectures as a condition: any module as a graph, and what of it can be given weights."""

from hypergen.conditions.graph.coverage import CoverageReport, Covered, coverage
from hypergen.conditions.graph.data import (
    dense_distances,
    graph_tensors,
    load_data,
    save_data,
    to_data,
)
from hypergen.conditions.graph.graph import Edge, ModuleGraph, Node, Skipped
from hypergen.conditions.graph.inputs import Example
from hypergen.conditions.graph.trace import trace

__all__ = [
    "CoverageReport",
    "Covered",
    "Edge",
    "Example",
    "ModuleGraph",
    "Node",
    "Skipped",
    "coverage",
    "dense_distances",
    "graph_tensors",
    "load_data",
    "save_data",
    "to_data",
    "trace",
]
