"""Fixed noise with orthogonal rows: what makes the rows of a wide layer differ."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from hypergen._utils.seeding import generator as seeded

BLOCK = 1024


@lru_cache(maxsize=64)
def cosine_basis(size: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II), `[size, size]`, times sqrt(size)."""
    steps = torch.arange(size, dtype=torch.float64, device="cpu")
    table = torch.cos(math.pi / size * (steps + 0.5) * steps[:, None]) * math.sqrt(2)
    table[0] = 1.0
    return table.to(torch.float32)


def orthogonal_noise(rows: int, columns: int, *key: object) -> Tensor:
    """A matrix `[rows, columns]` of variance 1 that depends on its sizes and the key alone.

    Rows of the cosine transform in random order, with random signs of rows and columns: orthogonal
    to each other within each block of as many rows as there are columns (at most 1,024), at the
    cost of a copy. A QR decomposition, which Saxe et al. (arXiv:1312.6120) use, costs the cube of
    the width.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        key: Whatever is to tell one matrix from another: strings and numbers.
    """
    rng = seeded("orthogonal noise", rows, columns, *key)
    width = math.ceil(columns / math.ceil(columns / BLOCK))
    basis = cosine_basis(width)
    blocks = []
    for start in range(0, rows, width):
        count = min(width, rows - start)
        parts = []
        for left in range(0, columns, width):
            size = min(width, columns - left)
            # One draw for the order of the rows and all signs: the last bits of whole numbers.
            order = torch.randperm(width, generator=rng)[:count]
            signs = torch.randint(0, 2, (count + size,), generator=rng).mul_(2).sub_(1).float()
            part = basis[order, :size] if size < width else basis[order]
            parts.append(part.mul_(signs[:count, None]).mul_(signs[count:]))
        blocks.append(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)
