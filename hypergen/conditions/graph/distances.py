"""Shortest paths along data flow."""

from __future__ import annotations

import torch
from torch import Tensor

CAP = 50  # as of GHN-2: longer paths count as this long


def forward_distances(edges: Tensor, count: int, cap: int = CAP) -> Tensor:
    """Number of edges from each node to each, along the edges.

    The distance against the edges is the transpose.

    Args:
        edges: `[2, E]` from and to.
        count: N, the number of nodes.
        cap: Distances above are given as `cap`; at most 254.

    Returns:
        `[N, N]` uint8: 0 on the diagonal, `cap + 1` where there is no path.
    """
    if not 1 <= cap <= 254:
        raise ValueError(f"the cap is between 1 and 254, not {cap}")
    import numpy as np
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import shortest_path

    ones = np.ones(edges.shape[1], dtype=np.float32)
    matrix = csr_matrix((ones, (edges[0].numpy(), edges[1].numpy())), shape=(count, count))
    found = torch.from_numpy(shortest_path(matrix, method="D", unweighted=True))
    none = torch.isinf(found)
    return found.clamp(max=cap).masked_fill(none, cap + 1).to(torch.uint8)
