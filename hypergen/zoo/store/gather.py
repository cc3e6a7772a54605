"""Rows from several mapped tensors into one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_LONG = 1 << 12  # bytes from which a copy of its own costs less than going through the cache
_CACHED = 1 << 18  # bytes that stay in the cache between two copies


def gather(
    sources: Mapping[int, Tensor], which: np.ndarray, rows: np.ndarray, out: Tensor
) -> Tensor:
    """Copies rows, in the order given.

    Consecutive rows of a source that belong together are one copy. Otherwise long rows are copied
    one by one, each at the speed of memory, and short ones of a source by one gather.

    Args:
        sources: Number → `[n, columns]`.
        which: `[N]` number of the source of each row.
        rows: `[N]` row of that source.
        out: `[N, columns]`, where to put them.

    Returns:
        `out`.
    """
    width = out.shape[1] * out.element_size()
    step = max(1, _CACHED // max(1, width))
    for number, source in sources.items():
        to = np.flatnonzero(which == number)
        wanted = rows[to]
        first, place, count = int(wanted[0]), int(to[0]), len(to)
        together = int(to[-1]) - place == count - 1
        if together and bool((np.diff(wanted) == 1).all()):
            out[place : place + count].copy_(source[first : first + count])
        elif width >= _LONG and out.device.type == "cpu":
            # As bytes: NumPy knows no bfloat16, and its assignment costs less than torch's.
            target, data = (x.view(torch.uint8).numpy() for x in (out, source))
            for i, j in zip(to.tolist(), wanted.tolist(), strict=True):
                target[i] = data[j]
        else:
            # Two copies, but the first one is still in the cache when the second one reads it.
            for start in range(0, count, step):
                chunk = torch.from_numpy(wanted[start : start + step])
                into = torch.from_numpy(to[start : start + step]).to(out.device)
                out.index_copy_(0, into, source.index_select(0, chunk).to(out.device))
    return out
