"""Graphs as tensors: PyTorch Geometric's `Data`, and files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypergen._utils.errors import RunError
from hypergen._utils.extras import require
from hypergen._utils.io import (
    PathLike,
    load_safetensors,
    load_safetensors_metadata,
    save_safetensors,
)
from hypergen.conditions.graph.distances import CAP, forward_distances
from hypergen.conditions.graph.graph import KINDS, ModuleGraph
from hypergen.conditions.graph.vocabulary import VERSION, number

if TYPE_CHECKING:
    from torch_geometric.data import Data

AXES = 4
# Names hold neither "index" nor "batch": PyG would add node counts to such attributes in a batch.
_TENSORS = (
    "edge_index",
    "kind",
    "op",
    "shape",
    "log_shape",
    "parameter",
    "block",
    "block_copy",
    "block_place",
    "distance",
)


def graph_tensors(graph: ModuleGraph, cap: int = CAP) -> dict[str, Tensor]:
    """The tensors of a graph of N nodes and E edges.

    Args:
        graph: The graph.
        cap: Longest distance that is told from longer ones.

    Returns:
        `edge_index` `[2, E]`; for each node `kind` (position in `KINDS`), `op` (number of the
        vocabulary), `shape` `[N, 4]` of parameters (1 where there is no axis, and for all other
        nodes), `log_shape` its natural logarithm, `parameter` (position among the graph's
        parameters, -1 otherwise), `block`, `block_copy` and `block_place` (-1 outside of repeated
        blocks); `distance` `[N · N]` uint8, row by row, as of `forward_distances`.
    """
    edges = [(e.source, e.target) for e in graph.edges]
    edge_index = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T.contiguous()
    shapes = [padded(n.shape) if n.kind == "parameter" else (1,) * AXES for n in graph.nodes]
    shape = torch.tensor(shapes, dtype=torch.int64).reshape(-1, AXES)
    place = torch.full((len(graph),), -1, dtype=torch.int64)
    place[list(graph.parameters.values())] = torch.arange(len(graph.parameters))

    def column(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64)

    return {
        "edge_index": edge_index,
        "kind": column([KINDS.index(n.kind) for n in graph.nodes]),
        "op": column([number(n.op) for n in graph.nodes]),
        "shape": shape,
        "log_shape": shape.to(torch.float32).log(),
        "parameter": place,
        "block": column([n.block for n in graph.nodes]),
        "block_copy": column([n.copy for n in graph.nodes]),
        "block_place": column([n.place for n in graph.nodes]),
        "distance": forward_distances(edge_index, len(graph), cap).flatten(),
    }


def padded(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape as four sizes: out, in, height, width.

    Missing axes are 1; further ones (of a 3-D convolution) are folded into the last, so that the
    product stays the number of entries.
    """
    sizes = [*shape, *[1] * (AXES - len(shape))]
    for extra in sizes[AXES:]:
        sizes[AXES - 1] *= extra
    return tuple(sizes[:AXES])


def to_data(graph: ModuleGraph, cap: int = CAP) -> Data:
    """The graph as PyTorch Geometric's `Data`, ready for its `Batch` and `DataLoader`.

    Beside the tensors of `graph_tensors` it has `num_nodes`, `cap` and `hash`.

    Raises:
        MissingExtraError: PyTorch Geometric is not installed.
    """
    return _data(graph_tensors(graph, cap), len(graph), cap, graph.hash)


def _data(tensors: dict[str, Tensor], count: int, cap: int, digest: str) -> Data:
    return pyg().Data(**tensors, num_nodes=count, cap=cap, hash=digest)


def pyg() -> Any:
    """`torch_geometric.data`, imported on first use.

    Raises:
        MissingExtraError: It is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import compiles with torch.jit, which is deprecated
        return require("torch_geometric.data", "graph", "a graph as PyG data")


def dense_distances(data: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Distances of a `Data` or of a `Batch` of B graphs, padded to the largest of N nodes.

    Returns:
        Forward `[B, N, N]`, backward `[B, N, N]` (uint8; `cap + 1` where there is no path and for
        padding) and the mask of real nodes `[B, N]`.
    """
    ptr = getattr(data, "ptr", None)
    counts = [int(data.num_nodes)] if ptr is None else (ptr[1:] - ptr[:-1]).tolist()
    cap = data.cap if type(data.cap) is int else int(data.cap.max())
    most = max(counts)
    forward = torch.full((len(counts), most, most), cap + 1, dtype=torch.uint8)
    forward = forward.to(data.distance.device)
    pieces = data.distance.split([n * n for n in counts])
    for row, (n, piece) in enumerate(zip(counts, pieces, strict=True)):
        forward[row, :n, :n] = piece.view(n, n)
    sizes = torch.tensor(counts, device=forward.device)
    mask = torch.arange(most, device=forward.device) < sizes[:, None]
    return forward, forward.transpose(1, 2), mask


def save_data(path: PathLike, graph: ModuleGraph, cap: int = CAP) -> Path:
    """Writes a graph and its tensors into one safetensors file, the graph as JSON in its header."""
    metadata = {
        "graph": json.dumps(graph.to_dict(), sort_keys=True),
        "cap": str(cap),
        "vocabulary": str(VERSION),
    }
    return save_safetensors(path, graph_tensors(graph, cap), metadata)


def load_data(path: PathLike) -> tuple[ModuleGraph, Data]:
    """Reads what `save_data` wrote.

    Raises:
        RunError: The file is missing, damaged, or of another vocabulary.
        MissingExtraError: PyTorch Geometric is not installed.
    """
    metadata = load_safetensors_metadata(path)
    if metadata.get("vocabulary") != str(VERSION):
        raise RunError(
            f"{path}: vocabulary {metadata.get('vocabulary')}, this version has {VERSION}"
        )
    try:
        graph = ModuleGraph.from_dict(json.loads(metadata["graph"]))
        cap = int(metadata["cap"])
    except (KeyError, ValueError) as error:
        raise RunError(f"{path}: {error}") from error
    tensors = load_safetensors(path)
    if set(tensors) != set(_TENSORS):
        raise RunError(f"{path} does not hold the tensors of a graph")
    return graph, _data({name: tensors[name] for name in _TENSORS}, len(graph), cap, graph.hash)
