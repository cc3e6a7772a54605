"""Gated graph network: messages along the flow of data and against it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hypergen.conditions.graph.batch import GraphBatch
from hypergen.conditions.graph.distances import CAP
from hypergen.conditions.graph.features import NodeFeatures


@dataclass(frozen=True)
class _Sweep:
    """An order of the nodes in levels: no two nodes of one depend on each other.

    Attributes:
        order: `[B, M]`, which node stands at each of M places, level by level (0 at empty ones).
        back: `[B, N]`, at which place each node stands.
        sizes: Places of each level.
        edges: `[B, M, M]`, 1 where the column's node has an edge into the row's.
        virtual: `[B, M, M]`, 1 / distance where a path of 2 or more steps leads there.
    """

    order: Tensor
    back: Tensor
    sizes: list[int]
    edges: Tensor
    virtual: Tensor


class GatedGraphNetwork(nn.Module):
    """Encodes nodes by a GRU that goes through the graph, forward and then backward.

    Knyazev et al., "Parameter Prediction for Unseen Deep Architectures" (GHN-2), NeurIPS 2021,
    arXiv:2110.13100. A node reads, of all nodes before it, those with an edge to it, and the rest
    weighted by 1 / distance (virtual edges), as they are after their own update. All nodes of one
    level, of all graphs of the batch, are updated at once.

    Args:
        dim: Width D.
        layers: How often both sweeps are run.
        cap: Longest distance of a virtual edge.
        depth: See `NodeFeatures`.
    """

    def __init__(self, dim: int = 32, layers: int = 1, cap: int = CAP, depth: float = 0.0) -> None:
        super().__init__()
        self.dim, self.cap, self.rounds = dim, cap, layers
        self.features = NodeFeatures(dim, depth)
        self.near = nn.Sequential(nn.Linear(dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, dim))
        self.far = nn.Sequential(nn.Linear(dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, dim))
        self.gru = nn.GRUCell(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, batch: GraphBatch) -> Tensor:
        """B graphs of N nodes → `[B, N, D]`, 0 for padding."""
        x: Tensor = self.features(batch)
        sweeps = [_sweep(batch, self.cap, backward, x.dtype) for backward in (False, True)]
        for _ in range(self.rounds):
            for sweep in sweeps:
                x = self._run(x, sweep)
        out: Tensor = self.norm(x)
        return out.masked_fill(~batch.mask[..., None], 0)

    def _run(self, x: Tensor, sweep: _Sweep) -> Tensor:
        x = x.gather(1, sweep.order[..., None].expand(-1, -1, self.dim))
        done: list[Tensor] = []
        start = 0
        near = far = x[:, :0]
        for size, level in zip(sweep.sizes, x.split(sweep.sizes, 1), strict=True):
            rows = slice(start, start + size)
            if start:
                message = sweep.edges[:, rows, :start] @ near + sweep.virtual[:, rows, :start] @ far
            else:
                message = torch.zeros_like(level)
            level = self.gru(message.flatten(0, 1), level.flatten(0, 1)).view_as(level)
            done.append(level)
            near = torch.cat([near, self.near(level)], 1)
            far = torch.cat([far, self.far(level)], 1)
            start += size
        x = torch.cat(done, 1)
        return x.gather(1, sweep.back[..., None].expand(-1, -1, self.dim))


def _sweep(batch: GraphBatch, cap: int, backward: bool, dtype: torch.dtype) -> _Sweep:
    level = batch.level[..., 1 if backward else 0]
    count = int(level.max()) + 1
    # Padding stands on a level of its own, behind all others, that is cut off.
    level = torch.where(batch.mask, level, count)
    inside = torch.nn.functional.one_hot(level, count + 1)
    sizes = inside.sum(1).amax(0)[:count].tolist()
    starts = torch.tensor([0, *sizes], device=level.device).cumsum(0)
    rank = (inside.cumsum(1).gather(2, level[..., None])[..., 0] - 1).clamp(min=0)
    total = int(starts[-1])
    place = torch.where(batch.mask, starts[level.clamp(max=count)] + rank, total)
    order = level.new_zeros(len(batch), total + 1)
    nodes = torch.arange(level.shape[1], device=level.device).expand_as(level)
    order = order.scatter(1, place, nodes)[:, :-1]
    filled = torch.zeros_like(order, dtype=torch.bool)
    filled = torch.cat([filled, filled[:, :1]], 1).scatter(1, place, True)[:, :-1]
    pairs = batch.pairs.to(torch.int64)
    # Row v, column u: how far u is behind v (or ahead, against the flow).
    distance = pairs if backward else pairs - (cap + 1)
    real = (distance >= 1) & (distance <= cap)
    edges = (real & (distance == 1)).to(dtype)
    virtual = torch.where(real & (distance > 1), 1.0 / distance.clamp(min=1), 0.0).to(dtype)

    def ordered(matrix: Tensor) -> Tensor:
        wide = matrix.gather(1, order[..., None].expand(-1, -1, matrix.shape[2]))
        wide = wide.gather(2, order[:, None].expand(-1, wide.shape[1], -1))
        return wide * (filled[:, :, None] & filled[:, None, :])

    back = place.clamp(max=total - 1)
    return _Sweep(order, back, sizes, ordered(edges), ordered(virtual))
