"""Many graphs as one batch of tensors, with true masks."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hypergen._utils.errors import ConditionError
from hypergen.conditions.graph.compress import Reduction, reduce_graph
from hypergen.conditions.graph.data import AXES, padded
from hypergen.conditions.graph.distances import CAP, forward_distances
from hypergen.conditions.graph.graph import KINDS, ModuleGraph
from hypergen.conditions.graph.vocabulary import number


@dataclass(frozen=True)
class Encoded:
    """One graph as an encoder reads it: N nodes.

    Attributes:
        op: `[N]` number of the operation or role.
        kind: `[N]` position in `KINDS`.
        shape: `[N, 4]` sizes of parameters; 0 for all other nodes.
        degree: `[N, 2]` how many edges lead in and out.
        level: `[N, 2]` longest path from a node without inputs (a parameter is one), and to the
            output.
        depth: `[N]` how far between input and output, in 0…1; of parameters where they are read.
        copies: `[N]` how many nodes of the network it stands for.
        pairs: `[N, N]` uint8, which pair of distances two nodes have (`distance_pairs`).
        reduction: What each node of the network became.
    """

    op: Tensor
    kind: Tensor
    shape: Tensor
    degree: Tensor
    level: Tensor
    depth: Tensor
    copies: Tensor
    pairs: Tensor
    reduction: Reduction


def pair_count(cap: int) -> int:
    """How many pairs of a forward and a backward distance there are, with the masked one last."""
    return 2 * cap + 4


def distance_pairs(forward: Tensor, cap: int) -> Tensor:
    """One number for the forward and the backward distance of two nodes.

    No edge leads back, so one of the two is always "no path" (or both are 0): with distances up to
    `cap` there are 2 · cap + 3 pairs. Row u, column v: v is d steps ahead → d; d steps behind →
    cap + 1 + d; neither → 2 · cap + 2.

    Args:
        forward: `[N, N]` as of `forward_distances`.
        cap: The longest distance in it, at most 120.
    """
    if cap > 120:
        raise ConditionError(f"distances up to {cap} are too many: cap is at most 120")
    return torch.where(forward <= cap, forward, forward.T + (cap + 1))


def levels(edges: Tensor, count: int) -> Tensor:
    """`[N]`, the longest path to each node; sources come before targets."""
    found = [0] * count
    order = edges[:, edges[1].argsort(stable=True)].T.tolist()
    for source, target in order:
        found[target] = max(found[target], found[source] + 1)
    return torch.tensor(found, dtype=torch.int64, device="cpu")


def depths(edges: Tensor, level: Tensor) -> Tensor:
    """`[N]`, the share of the longest path through a node that lies before it.

    A node without inputs stands right before the first that reads it.

    Args:
        edges: `[2, E]`; sources come before targets.
        level: `[N, 2]`, as of `Encoded`.
    """
    ahead, behind = level.unbind(1)
    reader = torch.full_like(ahead, len(level))
    reader = reader.scatter_reduce(0, edges[0], ahead[edges[1]], "amin")
    ahead = torch.where((ahead == 0) & (reader < len(level)), reader - 1, ahead)
    return ahead / (ahead + behind).clamp(min=1)


def encode_graph(graph: ModuleGraph, cap: int = CAP, compress: bool = False) -> Encoded:
    """The tensors of one graph; computed once for each `ModuleGraph` and kept with it."""
    known = _KNOWN.setdefault(id(graph), {})
    if not known:
        weakref.finalize(graph, _KNOWN.pop, id(graph), None)
    key = (cap, compress)
    if key not in known:
        known[key] = _encode(graph, cap, compress)
    return known[key]


_KNOWN: dict[int, dict[tuple[int, bool], Encoded]] = {}


def _encode(graph: ModuleGraph, cap: int, compress: bool) -> Encoded:
    reduction = reduce_graph(graph, compress)
    nodes = [graph.nodes[i] for i in reduction.kept.tolist()]
    count, edges = len(nodes), reduction.edges
    shapes = [padded(n.shape) if n.kind == "parameter" else (0,) * AXES for n in nodes]

    def column(values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device="cpu")

    ahead = levels(edges, count)
    behind = levels(count - 1 - edges.flip(0), count).flip(0)
    level = torch.stack([ahead, behind], 1)
    degree = [edges[1].bincount(minlength=count), edges[0].bincount(minlength=count)]
    return Encoded(
        op=column([number(n.op) for n in nodes]),
        kind=column([KINDS.index(n.kind) for n in nodes]),
        shape=column(shapes).reshape(-1, AXES),
        degree=torch.stack(degree, 1),
        level=level,
        depth=depths(edges, level),
        copies=reduction.copies,
        pairs=distance_pairs(forward_distances(edges, count, cap), cap),
        reduction=reduction,
    )


@dataclass(frozen=True)
class GraphBatch:
    """B graphs, padded to the largest of N nodes.

    Build it once for graphs that are used again: `GraphBatch.of(graphs)`.

    Attributes:
        graphs: The graphs.
        encoded: Their tensors.
        op, kind, depth, copies: `[B, N]`.
        shape: `[B, N, 4]`.
        degree, level: `[B, N, 2]`.
        pairs: `[B, N, N]` uint8; the last number of all where the column is padding.
        mask: `[B, N]` bool, True for nodes.
        cap: Longest distance.
        compress: Whether repeated blocks are read once.
    """

    graphs: tuple[ModuleGraph, ...]
    encoded: tuple[Encoded, ...]
    op: Tensor
    kind: Tensor
    copies: Tensor
    shape: Tensor
    degree: Tensor
    level: Tensor
    depth: Tensor
    pairs: Tensor
    mask: Tensor
    cap: int
    compress: bool

    @staticmethod
    def of(
        graphs: Sequence[ModuleGraph] | ModuleGraph, cap: int = CAP, compress: bool = False
    ) -> GraphBatch:
        """Makes a batch.

        Args:
            graphs: One or several graphs.
            cap: Longest distance that is told from longer ones.
            compress: Whether to read each repeated block once (see `reduce_graph`).

        Raises:
            ConditionError: No graph, or something that is none.
        """
        graphs = (graphs,) if isinstance(graphs, ModuleGraph) else tuple(graphs)
        if not graphs:
            raise ConditionError("no graph given: pass at least one (hypergen.conditions.graph)")
        for i, graph in enumerate(graphs):
            if not isinstance(graph, ModuleGraph):
                raise ConditionError(
                    f"graph {i} is a {type(graph).__name__}, not a ModuleGraph: trace(module) "
                    "makes one of a module"
                )
        encoded = tuple(encode_graph(graph, cap, compress) for graph in graphs)
        counts = torch.tensor([len(e.op) for e in encoded], device="cpu")
        most = int(counts.max())
        pairs = torch.full(
            (len(graphs), most, most), pair_count(cap) - 2, dtype=torch.uint8, device="cpu"
        )
        for i, e in enumerate(encoded):
            n = len(e.op)
            pairs[i, :n, :n] = e.pairs
            pairs[i, :, n:] = pair_count(cap) - 1

        names = ("op", "kind", "copies", "shape", "degree", "level", "depth")
        columns = {
            name: pad_sequence([getattr(e, name) for e in encoded], batch_first=True)
            for name in names
        }

        return GraphBatch(
            graphs,
            encoded,
            **columns,
            pairs=pairs,
            mask=torch.arange(most, device="cpu") < counts[:, None],
            cap=cap,
            compress=compress,
        )

    def __len__(self) -> int:
        return len(self.graphs)

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.op.device

    def to(self, device: torch.device | str) -> GraphBatch:
        """Moves the tensors; those of the single graphs stay where they are."""
        moved = {
            f.name: getattr(self, f.name).to(device)
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)
