"""Fixed noise with orthogonal rows: what makes the rows of a wide layer differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from hypergen._utils.seeding import generator as seeded

NARROW, WIDE = 256, 1024  # columns of a block, at least where there are more, and at most
UNIT = 64  # blocks end at multiples of it


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept may be asked for by validation first
def signed_cosines(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The orthogonal cosine transform (DCT-II) with random signs of its columns, twice.

    Any `size` neighbouring columns have orthogonal rows of mean square 1: signs keep what is
    orthogonal so, and so does turning all rows by the same number of places.

    Returns:
        `[size, 2 · size]`.
    """
    steps = torch.arange(size, dtype=torch.int32, device="cpu")
    # cos(π / size · (column + 1/2) · row), off the few values that it takes.
    circle = torch.arange(4 * size, dtype=torch.float64, device="cpu") * (math.pi / (2 * size))
    values = (circle.cos() * math.sqrt(2)).to(torch.float32)
    table = values[((2 * steps + 1) * steps[:, None]) % (4 * size)]
    table[0] = 1.0
    table *= torch.randint(0, 2, (size,), generator=seeded("signs of noise", size)) * 2.0 - 1
    return torch.cat([table, table], 1).to(device, dtype)


def orthogonal_noise(
    rows: int, columns: int, keys: Sequence[object], seed: int = 0, out: Tensor | None = None
) -> Tensor:
    """Matrices `[n, rows, columns]` of variance 1, one for each key.

    Rows of the cosine transform with random signs, turned by a random number of places and in
    random order: orthogonal to each other within each band of as many rows as there are columns (at
    most 1,024; of more columns about that), at the cost of a copy. A QR decomposition (Saxe et al.,
    arXiv:1312.6120) costs the cube of the width. A matrix depends on its sizes, its key and the
    seed alone.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        keys: Whatever is to tell one matrix from another: a string or number each.
        seed: Another seed, other matrices.
        out: Where to write.
    """
    if out is None:
        out = torch.empty(len(keys), rows, columns)
    # Blocks of columns, each orthogonal by itself: narrow ones where there are few rows, as the
    # transform of a block has as many rows as columns. Of few widths, each of which is computed.
    count = max(math.ceil(columns / WIDE), columns // max(min(rows, columns), NARROW), 1)
    edges = [round(columns * i / count / UNIT) * UNIT for i in range(count)] + [columns]
    band = min(right - left for left, right in pairwise(edges))
    for one, key in zip(out, keys, strict=True):
        rng = seeded("noise", rows, columns, seed, key)
        for left, right in pairwise(edges):
            width = right - left
            table = signed_cosines(width, out.device, out.dtype)
            start = int(torch.randint(width, (), generator=rng))
            for number, top in enumerate(range(0, rows, band)):
                # One place further for each band, so that no two hold the same rows.
                shift = (start + number) % width
                order = torch.randperm(width, generator=rng)[: rows - top][:band]
                turned = table[:, shift : shift + width]
                place = one[top : top + band, left:right]
                torch.index_select(turned, 0, order.to(out.device), out=place)
    return out
