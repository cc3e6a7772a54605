"""Random permutations of hidden units, drawn for each sample on its own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hypergen.zoo.canonical import Symmetry
from hypergen.zoo.reading.dataset import mixed


class RandomPermutation:
    """Permutes the hidden units of networks, which leaves their functions unchanged.

    What a network becomes depends on its own seed alone, not on the batch that it is read with:
    that is what `ZooDataset(augment=…)` asks for.

    Args:
        symmetry: Groups of units, see `hypergen.zoo.canonical.symmetry_of`.
    """

    def __init__(self, symmetry: Symmetry) -> None:
        self.symmetry = symmetry

    def __call__(self, flat: Tensor, seeds: Tensor) -> Tensor:
        """Permutes each row.

        Args:
            flat: `[B, numel]`.
            seeds: `[B]`, int64 of at least 0.

        Returns:
            `[B, numel]`, the same numbers in another order.
        """
        if not self.symmetry.groups or not len(flat):
            return flat
        sizes = [group.size for group in self.symmetry.groups]
        state = seeds.cpu().numpy().astype(np.uint64)
        keys = mixed(0, state[:, None] + mixed(1, np.arange(sum(sizes)))[None])
        # The order of random keys is a random permutation. Keys keep 63 bits, to be signed.
        signed = torch.from_numpy((keys >> np.uint64(1)).astype(np.int64))
        out = flat.clone()
        for number, part in enumerate(signed.to(flat.device).split(sizes, dim=1)):
            self.symmetry.permute_(out, number, part.argsort(1))
        return out
