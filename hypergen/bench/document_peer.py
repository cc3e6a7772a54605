"""The way of Generative Adapter's own scripts: masked products, random sketches, fat factors."""

from __future__ import annotations

import torch
from torch import Tensor

from hypergen.generators.fast_weights.family import FastWeights


class Peer:
    """Adapters after every chunk, from the same matrices as ours, in the released code's steps.

    - sums of every chunk are repeated for every prefix, masked, and added up;
    - a sum's leading singular vectors come of a randomised decomposition with one power iteration;
    - factors have the width of keys and values, whatever the rank of the update.

    After arXiv:2411.05877; written anew.

    Args:
        weights: The matrices of one module.
        rank: Most singular vectors kept.
    """

    def __init__(self, weights: FastWeights, rank: int) -> None:
        assert weights.key is not None
        self.query, self.key = weights.query.detach()[0], weights.key.detach()[0]
        self.value, self.out = weights.value.detach()[0], weights.out.detach()[0]
        self.rank = rank

    def sums(self, tokens: Tensor, chunk: int) -> Tensor:
        """`[B, T, h]` → sums up to every chunk, `[B, S, k, v]`."""
        keys = (tokens @ self.key.T).unflatten(1, (-1, chunk))
        values = (tokens @ self.value.T).unflatten(1, (-1, chunk))
        own = keys.mT @ values
        count = own.shape[1]
        mask = torch.ones(count, count).tril()
        # [B, S, S, k, v]: every chunk's sum, for every prefix.
        return (own[:, None] * mask[None, :, :, None, None]).sum(2)

    def factors(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """A `[B · S, v, in]` and B `[B · S, out, v]`."""
        left, _, right = torch.svd_lowrank(sums.flatten(0, 1), q=self.rank, niter=1)
        normalized = left @ right.mT
        return normalized.mT @ self.query, self.out.expand(len(normalized), -1, -1).contiguous()

    def __call__(self, tokens: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        """Factors of every document and prefix."""
        return self.factors(self.sums(tokens, chunk))
