"""Fixed noise with orthogonal rows: what makes the rows of a wide layer differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from hypergen._utils.seeding import generator as seeded

BLOCK = 1024


@lru_cache(maxsize=32)
def cosine_basis(size: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II), `[size, size]`, times sqrt(size)."""
    steps = torch.arange(size, dtype=torch.float64, device="cpu")
    table = torch.cos(math.pi / size * (steps + 0.5) * steps[:, None]) * math.sqrt(2)
    table[0] = 1.0
    return table.to(torch.float32)


def orthogonal_noise(
    rows: int, columns: int, keys: Sequence[object], seed: int = 0, out: Tensor | None = None
) -> Tensor:
    """Matrices `[n, rows, columns]` of variance 1, one for each key.

    Rows of the cosine transform with random signs, in random order: orthogonal to each other within
    each block of as many rows as there are columns (at most 1,024), at the cost of a copy. A QR
    decomposition (Saxe et al., arXiv:1312.6120) costs the cube of the width. A matrix depends on
    its sizes, its key and the seed alone.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        keys: Whatever is to tell one matrix from another: a string or number each.
        seed: Another seed, other matrices.
        out: Where to write.
    """
    if out is None:
        out = torch.empty(len(keys), rows, columns)
    width = math.ceil(columns / math.ceil(columns / BLOCK))
    basis = cosine_basis(width)
    own = [seeded("noise", rows, columns, seed, key) for key in keys]
    shared = seeded("signs of noise", rows, columns, seed)
    for top in range(0, rows, width):
        count = min(width, rows - top)
        for left in range(0, columns, width):
            size = min(width, columns - left)
            # Each block has signs of its columns, so that no two blocks hold the same rows.
            signs = torch.randint(0, 2, (size,), generator=shared, device="cpu") * 2.0 - 1
            signed = (basis[:, :size] * signs).to(out)
            for one, rng in zip(out, own, strict=True):
                order = torch.randperm(width, generator=rng, device="cpu")[:count].to(out.device)
                turned = torch.randint(0, 2, (count, 1), generator=rng, device="cpu") * 2.0 - 1
                part = one[top : top + count, left : left + size]
                if part.is_contiguous():
                    torch.index_select(signed, 0, order, out=part).mul_(turned.to(out))
                else:
                    torch.mul(signed[order], turned.to(out), out=part)
    return out
