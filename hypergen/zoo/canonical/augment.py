"""Random permutations of hidden units: other weights, the same function."""

from __future__ import annotations

import torch
from torch import Tensor

from hypergen._utils.seeding import generator as seeded
from hypergen.zoo.canonical.symmetry import Symmetry


def random_permutations(symmetry: Symmetry, count: int, seed: int) -> list[Tensor]:
    """Draws permutations of every group, uniformly and independently for each network.

    Args:
        symmetry: The groups.
        count: Number of networks N.
        seed: Equal seeds draw equal permutations, in any process.

    Returns:
        For each group `[N, size]`, as `Symmetry.index` takes them.
    """
    generator = seeded("permutations", seed)
    # Sorting random numbers permutes all rows at once, where randperm would need one call a row.
    return [
        torch.rand(count, g.size, generator=generator, dtype=torch.float64).argsort(1)
        for g in symmetry.groups
    ]


def random_index(symmetry: Symmetry, count: int, seed: int) -> Tensor:
    """Draws one index vector of the flat weights for each network: `[N, numel]`, int64.

    `flat.gather(1, index)` permutes N networks; `flat[index[0]]` one.
    """
    return symmetry.index(random_permutations(symmetry, count, seed)).expand(count, -1)


def augment(flat: Tensor, symmetry: Symmetry, seed: int) -> Tensor:
    """Permutes the hidden units of each network at random; the numbers are moved, never changed.

    Args:
        flat: `[N, numel]`, in any dtype and on any device.
        symmetry: The groups of the networks' spec.
        seed: Equal seeds permute equally, in any process.

    Returns:
        `[N, numel]`, networks of the same functions.

    Raises:
        WeightsError: `flat` does not fit the symmetry's spec.
    """
    symmetry.check(flat)
    return flat.gather(1, random_index(symmetry, len(flat), seed).to(flat.device))
