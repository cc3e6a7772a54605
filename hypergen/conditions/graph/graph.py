"""ModuleGraph: what a network computes, as nodes and edges in the order of data flow."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from hypergen._utils.errors import RunError
from hypergen._utils.io import PathLike, read_json, write_json

Kind = Literal["input", "parameter", "operation", "output"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FORMAT = 1


@dataclass(frozen=True)
class Node:
    """One input, parameter or operation, or the output.

    Attributes:
        kind: Which of these.
        op: Name of the operation; of a parameter its role, the operation that first reads it and
            the argument that it is there, such as `linear.weight`.
        name: Of a parameter its first name, of an input the argument's, of an operation the path
            of the module that calls it.
        shape: Of a parameter its shape; of an operation that of its (first) result, with the
            example's batch; empty where it is not known.
        ties: Further names of a parameter.
        fan_in: How many inputs one output of the parameter's operation sums over; None where that
            has no meaning (biases, scales, tables that are looked up).
        block: Number of the repeated block that the node is in; -1 outside of any.
        copy: Which of the block's repetitions.
        place: Position within the repetition: nodes of one block and place correspond.
    """

    kind: Kind
    op: str
    name: str
    shape: tuple[int, ...] = ()
    ties: tuple[str, ...] = ()
    fan_in: int | None = None
    block: int = -1
    copy: int = -1
    place: int = -1


@dataclass(frozen=True)
class Edge:
    """Data flow from one node to another.

    Attributes:
        source: Number of the node that data comes from.
        target: Number of the node that reads it.
        slot: Name of the argument that it is there.
    """

    source: int
    target: int
    slot: str


@dataclass(frozen=True)
class Skipped:
    """A parameter without a node.

    Attributes:
        name: Its first name.
        shape: Its shape.
        ties: Its further names.
        reason: Why it has none.
    """

    name: str
    shape: tuple[int, ...]
    ties: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class ModuleGraph:
    """A network's computation graph.

    Nodes are in an order in which data flows: no edge leads back. A parameter is one node however
    often it is used and whatever names it has.

    Attributes:
        nodes: Inputs, parameters, operations and one output.
        edges: Sorted by target, then by the order of its arguments.
        skipped: Parameters that the forward does not use.
        name: Class of the network.
        method: How it was traced: `dispatch`, `export` or `fx`.
        example: What it was called with.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    skipped: tuple[Skipped, ...] = ()
    name: str = ""
    method: str = "dispatch"
    example: str = ""

    def __len__(self) -> int:
        return len(self.nodes)

    def of_kind(self, kind: Kind) -> Iterator[tuple[int, Node]]:
        """(number, node) of all nodes of a kind."""
        return ((i, node) for i, node in enumerate(self.nodes) if node.kind == kind)

    @property
    def parameters(self) -> dict[str, int]:
        """First name of each parameter → number of its node, in the order of data flow."""
        return {node.name: i for i, node in self.of_kind("parameter")}

    def uses(self, number: int) -> list[tuple[str, str, str]]:
        """(operation, argument, module) of all that read a node."""
        return [
            (self.nodes[e.target].op, e.slot, self.nodes[e.target].name)
            for e in self._out.get(number, ())
        ]

    @cached_property
    def _out(self) -> dict[int, list[Edge]]:
        found: dict[int, list[Edge]] = {}
        for edge in self.edges:
            found.setdefault(edge.source, []).append(edge)
        return found

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the architecture: of nodes, names, parameters' shapes and edges.

        Values, devices, `requires_grad`, and the sizes of the example do not count.
        """
        parts: list[Any] = [FORMAT]
        for n in self.nodes:
            shape = list(n.shape) if n.kind == "parameter" else []
            parts.append([n.kind, n.op, n.name, shape, list(n.ties)])
        parts.append([[e.source, e.target, e.slot] for e in self.edges])
        parts.append([[s.name, list(s.shape), list(s.ties)] for s in self.skipped])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def blocks(self) -> dict[int, list[list[int]]]:
        """Number of a repeated block → for each repetition its nodes, in corresponding order."""
        found: dict[int, dict[int, list[tuple[int, int]]]] = {}
        for i, node in enumerate(self.nodes):
            if node.block >= 0:
                found.setdefault(node.block, {}).setdefault(node.copy, []).append((node.place, i))
        return {
            block: [[i for _, i in sorted(copies[c])] for c in sorted(copies)]
            for block, copies in sorted(found.items())
        }

    def summary(self) -> dict[str, Any]:
        """Counts, for people and for JSON."""
        kinds = Counter(node.kind for node in self.nodes)
        ops = Counter(node.op for node in self.nodes if node.kind == "operation")
        return {
            "name": self.name,
            "hash": self.hash,
            "method": self.method,
            "example": self.example,
            "nodes": {kind: kinds[kind] for kind in KINDS},
            "edges": len(self.edges),
            "operations": dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
            "blocks": [
                {"copies": len(copies), "nodes": len(copies[0])} for copies in self.blocks.values()
            ],
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with the hash of the architecture."""
        return {"format": FORMAT, "hash": self.hash, **asdict(self)}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ModuleGraph:
        """Rebuilds a graph.

        Raises:
            RunError: It is of another format, incomplete, or not the graph that was saved.
        """
        if data.get("format") != FORMAT:
            raise RunError(f"graph format {data.get('format')!r}: this version reads {FORMAT}")
        try:
            graph = ModuleGraph(
                nodes=tuple(
                    Node(**{**n, "shape": tuple(n["shape"]), "ties": tuple(n["ties"])})
                    for n in data["nodes"]
                ),
                edges=tuple(Edge(**e) for e in data["edges"]),
                skipped=tuple(
                    Skipped(**{**s, "shape": tuple(s["shape"]), "ties": tuple(s["ties"])})
                    for s in data["skipped"]
                ),
                **{key: data[key] for key in ("name", "method", "example")},
            )
        except (KeyError, TypeError) as error:
            raise RunError(f"not a graph: {error}") from error
        if graph.hash != data.get("hash"):
            raise RunError("the graph is not the one that was saved: its hash differs")
        return graph

    def save(self, path: PathLike) -> None:
        """Writes the graph as JSON."""
        write_json(path, self.to_dict())

    @staticmethod
    def load(path: PathLike) -> ModuleGraph:
        """Reads what `save` wrote.

        Raises:
            RunError: The file is missing, damaged or of another format.
        """
        try:
            return ModuleGraph.from_dict(read_json(path))
        except RunError as error:
            if str(path) in str(error):
                raise
            raise RunError(f"{path}: {error}") from error
