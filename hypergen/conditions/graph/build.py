"""From the record of a forward to the graph: nodes in the order of data flow, edges, roles."""

from __future__ import annotations

import math

from torch import nn

from hypergen.conditions.graph.blocks import mark_blocks
from hypergen.conditions.graph.fuse import fuse
from hypergen.conditions.graph.graph import Edge, ModuleGraph, Node, Skipped
from hypergen.conditions.graph.records import Call, Record, Source
from hypergen.conditions.graph.simplify import Simplified, simplify

# Roles of parameters that no layer names: what they are part of, whichever argument they are.
_PLAIN = frozenset(
    [
        "weight",
        "bias",
        "weight_ih",
        "weight_hh",
        "bias_ih",
        "bias_hh",
        "weight_hr",
        "in_proj_weight",
        "in_proj_bias",
    ]
)
_LOOKED_UP = frozenset(["embedding", "embedding_bag", "prelu", "rms_norm", "layer_norm"])


def build_graph(module: nn.Module, record: Record, example: str = "") -> ModuleGraph:
    """Makes the graph of a record.

    Args:
        module: The network that was traced.
        record: What its forward did.
        example: Description of what it was called with.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    parameters = {p.name: p for p in _parameters(module, names)}
    found = fuse(simplify(record), record)
    nodes, edges = _nodes(found, record, parameters)
    reached = {node.name for node in nodes if node.kind == "parameter"}
    read = {record.sources[v].name for v in found.used}
    skipped = []
    for name, entry in parameters.items():
        if name not in reached:
            reason = (
                "what is computed from it reaches no output"
                if name in read
                else "the forward does not use it"
            )
            skipped.append(Skipped(name, entry.shape, entry.ties, reason))
    graph = ModuleGraph(
        nodes=tuple(nodes),
        edges=tuple(edges),
        skipped=tuple(skipped),
        name=type(module).__name__,
        method=record.method,
        example=example,
    )
    return mark_blocks(graph, module)


def _parameters(module: nn.Module, names: dict[int, list[str]]) -> list[Skipped]:
    found = []
    for parameter in module.parameters():
        first, *ties = names[id(parameter)]
        shape = () if _is_lazy(parameter) else tuple(parameter.shape)
        found.append(Skipped(first, shape, tuple(ties), ""))
    return found


def _is_lazy(parameter: nn.Parameter) -> bool:
    return isinstance(parameter, nn.parameter.UninitializedParameter)


def _nodes(
    found: Simplified, record: Record, parameters: dict[str, Skipped]
) -> tuple[list[Node], list[Edge]]:
    nodes: list[Node] = []
    edges: list[Edge] = []
    at: dict[int, int] = {}

    def source(value: int, role: str, fan_in: int | None = None) -> int:
        if value not in at:
            at[value] = len(nodes)
            nodes.append(_source_node(record.sources[value], role, parameters, fan_in))
        return at[value]

    for value, entry in record.sources.items():
        if entry.kind == "input" and any(
            value == v for step in found.steps for _, v in step.inputs
        ):
            source(value, "input")
    for step in found.steps:
        for slot, value in step.inputs:
            if value in record.sources:
                shape = record.sources[value].shape
                source(value, _role(step.call.op, slot), _fan_in(step.call, slot, shape))
        number = len(nodes)
        at[step.call.outputs[0]] = number
        nodes.append(
            Node("operation", step.call.op, step.call.module, tuple(step.call.shape or ()))
        )
        seen: set[int] = set()
        for slot, value in step.inputs:
            if at[value] not in seen:
                seen.add(at[value])
                edges.append(Edge(at[value], number, slot))
    reached = [v for v in found.outputs if v in at or v in record.sources]
    sources = [source(v, "output") for v in reached]
    nodes.append(Node("output", "output", ""))
    edges += [Edge(n, len(nodes) - 1, "output") for n in dict.fromkeys(sources)]
    return nodes, edges


def _source_node(
    entry: Source, role: str, parameters: dict[str, Skipped], fan_in: int | None
) -> Node:
    if entry.kind == "input":
        return Node("input", "input", entry.name, entry.shape)
    known = parameters[entry.name]
    return Node("parameter", role, entry.name, known.shape, known.ties, fan_in)


def _fan_in(call: Call, slot: str, shape: tuple[int, ...]) -> int | None:
    """How many numbers an output sums over; for a transposed convolution at stride 1."""
    if not slot.startswith("weight") or len(shape) < 2:
        return None
    if call.op.startswith("conv_transpose"):
        channels = shape[1] if call.shape is None else call.shape[1 - len(shape)]
        groups = max(1, channels // shape[1])
        return shape[0] // groups * math.prod(shape[2:])
    if call.op.startswith("conv"):
        return math.prod(shape[1:])
    if call.op == "linear" and call.contracted is not None:
        return call.contracted
    if call.op in _LOOKED_UP:
        return None
    return math.prod(shape[1:]) if call.op == "bilinear" else shape[-1]


def _role(op: str, slot: str) -> str:
    return f"{op}.{slot}" if slot in _PLAIN else f"{op}.parameter"
