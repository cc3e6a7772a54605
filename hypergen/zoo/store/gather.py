"""Rows from several mapped tensors into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_CACHED = 1 << 18  # bytes that stay in the cache between two copies


def gather(
    sources: Mapping[str, Tensor],
    places: Sequence[tuple[str, int]],
    shape: tuple[int, int],
    dtype: torch.dtype,
) -> Tensor:
    """Copies rows, in the order given.

    Rows that lie in a row of the same source, one after the other, are one copy. Others of one
    source are one gather, straight into place where the places are consecutive too.

    Args:
        sources: Name → `[n, columns]`.
        places: (source, row) of each row wanted.
        shape: (number of places, columns).
        dtype: That of the sources.

    Returns:
        `[len(places), columns]`.
    """
    out = torch.empty(shape, dtype=dtype)
    if not places:
        return out
    number = {name: i for i, name in enumerate(sources)}
    which = torch.tensor([number[name] for name, _ in places])
    rows = torch.tensor([row for _, row in places])
    step = max(1, _CACHED // max(1, shape[1] * dtype.itemsize))
    for name, i in number.items():
        source = sources[name]
        to = (which == i).nonzero().flatten()
        wanted = rows[to]
        count = len(to)
        if count == 0:
            continue
        first, place = int(wanted[0]), int(to[0])
        in_order = bool((wanted.diff() == 1).all())
        together = bool((to.diff() == 1).all())
        if in_order and together:
            out[place : place + count].copy_(source[first : first + count])
        elif together and source.is_contiguous():
            torch.index_select(source, 0, wanted, out=out[place : place + count])
        else:
            # Two copies, but the first one is still in the cache when the second one reads it.
            for chunk, into in zip(wanted.split(step), to.split(step), strict=True):
                out.index_copy_(0, into, source.index_select(0, chunk))
    return out
