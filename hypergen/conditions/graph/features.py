"""What an encoder knows of a node before it looks at others."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError
from hypergen.conditions.graph.batch import GraphBatch
from hypergen.conditions.graph.data import AXES
from hypergen.conditions.graph.graph import KINDS
from hypergen.conditions.graph.vocabulary import TOTAL

BUCKETS = 128
PER_OCTAVE = 4
OCTAVES = 7  # of frequencies: a hundred layers are told apart


def bucket(values: Tensor) -> Tensor:
    """Numbers of buckets for whole numbers ≥ 0: 0, then 1 and up by the logarithm.

    A quarter of an octave is one bucket; 2^31 and above share the last.
    """
    logs = values.clamp(min=1).to(torch.float64).log2() * PER_OCTAVE
    return torch.where(values > 0, logs.round().to(torch.int64) + 1, 0).clamp(max=BUCKETS - 1)


class BucketEmbedding(nn.Module):
    """Sums of lookups of several whole numbers, each by its logarithm.

    A bucket that no training step has met is read as the nearest that one has, so that sizes in
    between, or somewhat beyond, get a vector that was learnt (PPUDA does so with its shapes).

    Args:
        columns: How many numbers a node has.
        dim: Width D.
    """

    seen: Tensor

    def __init__(self, columns: int, dim: int) -> None:
        super().__init__()
        self.columns = columns
        self.table = nn.Parameter(torch.randn(columns, BUCKETS, dim) * 0.3)
        self.register_buffer("seen", torch.zeros(columns, BUCKETS, dtype=torch.bool))

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """`[B, N, columns]` and `[B, N]` → `[B, N, D]`."""
        found = bucket(values)
        offsets = torch.arange(self.columns, device=found.device) * BUCKETS
        if self.training:
            self.seen.view(-1)[(found + offsets)[mask].flatten()] = True
        else:
            found = self._nearest().view(-1)[found + offsets]
        return self.table.flatten(0, 1)[found + offsets].sum(-2)

    def _nearest(self) -> Tensor:
        """`[columns, BUCKETS]`, the nearest seen bucket; 0 (no size) stands for itself."""
        own = torch.arange(BUCKETS, device=self.seen.device)
        far = (own[:, None] - own).abs() * 2 + (own[:, None] < own)  # of two, the smaller
        far = torch.where(self.seen[:, None, :] & (own > 0), far, 10 * BUCKETS)
        nearest = far.argmin(-1)
        usable = self.seen[:, 1:].any(-1, keepdim=True) & (own > 0)
        return torch.where(usable, nearest, own.expand_as(nearest))


class NodeFeatures(nn.Module):
    """Operation or role, kind, sizes, degrees, depth and repetitions of each node.

    Of two parameters of one role and size the levels alone differ, often by less than a bucket: at
    the start they are nearly the same vector, and get nearly the same weights. `depth` tells them
    apart.

    Args:
        dim: Width D.
        depth: Spread at the start of a code of where between input and output a node stands, beside
            the other features, which have 1.7 together; 0 for none.

    Raises:
        ConditionError: `depth` is negative.
    """

    seen: Tensor

    def __init__(self, dim: int, depth: float = 0.0) -> None:
        super().__init__()
        if depth < 0:
            raise ConditionError(f"depth={depth} is a spread: 0 or more")
        self.depth = nn.Linear(2 * OCTAVES, dim, bias=False) if depth else None
        if self.depth is not None:
            nn.init.normal_(self.depth.weight, std=depth / math.sqrt(OCTAVES))
        self.op = nn.Embedding(TOTAL, dim)
        self.kind = nn.Embedding(len(KINDS), dim)
        self.shape = BucketEmbedding(AXES, dim)
        self.place = BucketEmbedding(5, dim)
        self.norm = nn.LayerNorm(dim)
        self.register_buffer("seen", torch.zeros(TOTAL, dtype=torch.bool))

    def forward(self, batch: GraphBatch) -> Tensor:
        """The B graphs of N nodes → `[B, N, D]`."""
        if self.training:
            self.seen[batch.op[batch.mask]] = True
        place = torch.cat([batch.degree, batch.level, batch.copies[..., None]], -1)
        total = self.op(batch.op) + self.kind(batch.kind)
        total = total + self.shape(batch.shape, batch.mask) + self.place(place, batch.mask)
        if self.depth is not None:
            octaves = 2.0 ** torch.arange(OCTAVES, device=batch.device)
            angles = batch.depth[..., None] * (math.pi * octaves)
            total = total + self.depth(torch.cat([angles.cos(), angles.sin()], -1).to(total))
        out: Tensor = self.norm(total)
        return out

    def unseen(self, ops: Tensor) -> Tensor:
        """Which of the operations `[K]` no training step has met; none before any step."""
        if not bool(self.seen.any()):
            return torch.zeros_like(ops, dtype=torch.bool)
        return ~self.seen.to(ops.device)[ops]
