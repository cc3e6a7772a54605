"""The order in which every member sees its samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hypergen._utils.seeding import generator


class DataOrder:
    """Endless shuffled passes over the samples, another one for each member.

    A member's order depends on its seed alone: it goes through all samples in a random order, then
    through all of them in another one; a batch may hold the end of one pass and the start of the
    next. The batches of many steps are drawn at once.

    Args:
        seeds: One seed a member.
        samples: Number of samples.
        batch_size: Samples of a member in one step.
    """

    def __init__(self, seeds: Sequence[int], samples: int, batch_size: int) -> None:
        self.samples, self.batch_size = samples, batch_size
        self._generators = [generator("order", seed) for seed in seeds]
        self._pass = torch.empty(len(seeds), samples, dtype=torch.long)
        self._used = samples

    def take(self, steps: int) -> Tensor:
        """Sample numbers `[steps, M, batch_size]` of the next steps."""
        parts, missing = [], steps * self.batch_size
        while missing:
            if self._used == self.samples:
                for row, source in zip(self._pass, self._generators, strict=True):
                    torch.randperm(self.samples, generator=source, out=row)
                self._used = 0
            count = min(missing, self.samples - self._used)
            parts.append(self._pass[:, self._used : self._used + count].clone())
            self._used += count
            missing -= count
        rows = torch.cat(parts, dim=1).unflatten(1, (steps, self.batch_size))
        return rows.transpose(0, 1).contiguous()
