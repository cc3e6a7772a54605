"""Vectors for the positions of rows, columns and kernels, of any number."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hypergen._utils.seeding import generator as seeded

_CHUNK = 512  # positions whose angles are computed at once, and stay in a processor's cache


class PositionCodes(nn.Module):
    """A code for each of n positions, whatever n is.

    The first R positions are R orthogonal vectors. Further ones are cosines of the position with
    fixed frequencies, projected: none repeats another, so that rows of wide layers are not copies
    of each other. With `chirp` the frequency rises along the
    positions: codes of two sets are then as far from orthogonal as random vectors are, so that what
    one layer writes reaches the next with the variance that it would have in a random network. A
    table adds a learnt vector to the first positions.

    Args:
        dim: Width R of a code; its entries have mean square 1 at the start.
        name: Tells the frequencies of one set from those of another.
        chirp: See above.
        axes: How many numbers a position is.
        table: How many positions have a vector of their own (of one axis alone).
        fastest: Highest frequency, in radians a step.
    """

    frequencies: Tensor
    phases: Tensor
    rises: Tensor

    def __init__(
        self,
        dim: int,
        name: str,
        *,
        chirp: bool = True,
        axes: int = 1,
        table: int = 0,
        fastest: float = math.pi,
    ) -> None:
        super().__init__()
        self.dim = dim
        features = 2 * dim
        rng = seeded("position codes", name, axes, features)
        frequencies = torch.rand(axes, features, generator=rng, dtype=torch.float64) * fastest
        phases = torch.rand(features, generator=rng, dtype=torch.float64) * 2 * math.pi
        rises = torch.rand(axes, features, generator=rng, dtype=torch.float64) * fastest * chirp
        # Of half a step. Whole numbers wrap around as angles do: position 100,000 has its angle
        # exactly, and no change of the module's dtype rounds a frequency.
        self.register_buffer("frequencies", _turns(frequencies / 2), persistent=False)
        self.register_buffer("phases", _turns(phases), persistent=False)
        self.register_buffer("rises", _turns(rises / 4), persistent=False)
        self.project = nn.Linear(features, dim, bias=False)
        nn.init.orthogonal_(self.project.weight)
        self.project.weight.data.mul_(math.sqrt(max(features, dim) / features))
        self.table = nn.Parameter(torch.zeros(table, dim)) if table else None

    def forward(self, positions: Tensor) -> Tensor:
        """`[n, axes]` (whole, or half of whole numbers) → `[n, R]`."""
        features = self.project.weight.new_empty(len(positions), self.project.in_features)
        halves = (positions * 2).to(torch.int64)
        for own, part in zip(features.split(_CHUNK), halves.split(_CHUNK), strict=True):
            angles = self.phases.expand(len(part), -1)
            for axis, steps in enumerate(part.split(1, 1)):
                angles = angles + steps * self.frequencies[axis]
                angles += steps.square() * self.rises[axis]
            own.copy_(angles.float().mul_(2 * math.pi / 2**64).cos_().mul_(math.sqrt(2)))
        out: Tensor = self.project(features)
        return out

    def first(self, count: int) -> Tensor:
        """Codes of the positions 0 to `count` - 1, `[count, R]`."""
        weight = self.project.weight
        out = torch.eye(min(count, self.dim), self.dim, dtype=weight.dtype, device=weight.device)
        out = out * math.sqrt(self.dim)
        if count > self.dim:
            further = torch.arange(self.dim, count, device=weight.device)
            out = torch.cat([out, self(further[:, None])])
        if self.table is None:
            return out
        own = self.table[:count]
        return out + nn.functional.pad(own, (0, 0, 0, count - len(own)))


def _turns(angles: Tensor) -> Tensor:
    """Angles as parts of a turn, of which there are 2^64: int64."""
    parts = (angles / (2 * math.pi) + 0.5) % 1.0 - 0.5
    return (parts * 2.0**64).to(torch.int64)


def kernel_offsets(kernel: tuple[int, ...], device: torch.device) -> Tensor:
    """`[K, 3]`, how far each position of a kernel is from its centre, axis by axis.

    Kernels of all sizes share the codes around their centre. Missing axes are 0.
    """
    axes = [torch.arange(n, device=device) - (n - 1) / 2 for n in kernel[:3]]
    axes = [*[torch.zeros(1, device=device)] * (3 - len(axes)), *axes]
    return torch.cartesian_prod(*axes)
