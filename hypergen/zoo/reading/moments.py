"""Mean and spread of every number of a zoo, in one pass and bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.progress import progress
from hypergen.specs import WeightSpec
from hypergen.zoo.store import Zoo

CHUNK = 1 << 22  # numbers that are read at a time
_CACHED = 1 << 19  # numbers in float64 that stay in the cache between two passes


@dataclass(frozen=True)
class Moments:
    """Weighted count, mean and squared deviations of every number, in float64.

    Moments of disjoint parts of a zoo merge into those of the whole (Chan, Golub and LeVeque,
    "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", Stanford
    STAN-CS-79-773, 1979), so that parts can be read in any order, or by several processes.

    Attributes:
        spec: What the numbers mean.
        count: Sum of the weights of the checkpoints; their number when they have none.
        mean: `[numel]`.
        squares: `[numel]`, weighted sum of squared deviations from the mean.
    """

    spec: WeightSpec
    count: float
    mean: Tensor
    squares: Tensor

    @staticmethod
    def empty(spec: WeightSpec) -> Moments:
        """Moments of no checkpoint."""
        zeros = torch.zeros(spec.numel, dtype=torch.float64)
        return Moments(spec, 0.0, zeros, zeros.clone())

    @staticmethod
    def of(spec: WeightSpec, flat: Tensor, weights: Tensor | None = None) -> Moments:
        """Moments of rows that are in memory.

        Args:
            spec: What the numbers mean.
            flat: `[N, numel]`.
            weights: `[N]`, weight of each row, at least 0; 1 when not given.
        """
        count = float(len(flat) if weights is None else weights.sum())
        if count == 0:
            return Moments.empty(spec)
        # Strip by strip of columns, so that the passes over a strip stay in the cache.
        sums = torch.ones(len(flat)) if weights is None else weights
        sums = sums.to(torch.float64)
        mean, squares = (torch.empty(spec.numel, dtype=torch.float64) for _ in range(2))
        width = max(64, _CACHED // len(flat))
        for start in range(0, spec.numel, width):
            part = slice(start, start + width)
            x = flat[:, part].to(torch.float64, copy=True)
            mean[part] = sums @ x / count
            x.sub_(mean[part]).square_()
            squares[part] = sums @ x
        return Moments(spec, count, mean, squares)

    def merge(self, other: Moments) -> Moments:
        """Moments of two disjoint sets of checkpoints together.

        Raises:
            UsageError: They are of different specs.
        """
        if self.spec != other.spec:
            raise UsageError("moments of different specs cannot be merged")
        count = self.count + other.count
        if count == 0:
            return self
        share = other.count / count
        delta = other.mean - self.mean
        squares = self.squares + other.squares + delta.square() * (self.count * share)
        return Moments(self.spec, count, torch.lerp(self.mean, other.mean, share), squares)

    def std(self, correction: float = 0.0) -> Tensor:
        """`[numel]`, standard deviation over the checkpoints.

        Args:
            correction: Subtracted from the count: 0 is the spread of these checkpoints, 1 the
                unbiased estimate for more of their kind (only where weights are counts).
        """
        return (self.squares / max(self.count - correction, 1e-300)).sqrt()

    @property
    def slot_mean(self) -> Tensor:
        """`[slots]`, mean over the checkpoints and all entries of a slot."""
        return torch.stack([part.mean() for part in self._by_slot(self.mean)])

    @property
    def slot_std(self) -> Tensor:
        """`[slots]`, standard deviation over the checkpoints and all entries of a slot."""
        variance = self.squares / max(self.count, 1e-300)
        inner = torch.stack([part.mean() for part in self._by_slot(variance)])
        between = torch.stack([p.var(correction=0) for p in self._by_slot(self.mean)])
        return (inner + between).sqrt()

    def _by_slot(self, values: Tensor) -> tuple[Tensor, ...]:
        return values.split([slot.numel for slot in self.spec])


def compute_moments(
    zoo: Zoo, weights: Tensor | np.ndarray | None = None, *, chunk: int = CHUNK
) -> Moments:
    """Reads a zoo of one architecture once and returns its moments.

    Memory: four times a checkpoint in float64, and `chunk` numbers; never the whole zoo.

    Args:
        zoo: Checkpoints of one architecture.
        weights: `[N]`, weight of each checkpoint, at least 0.
        chunk: How many numbers are read at a time (at least one checkpoint is).

    Raises:
        UsageError: Several architectures, no checkpoint, or weights of another length, negative
            or all zero.
    """
    spec = zoo.spec
    checked = None if weights is None else _check_weights(weights, len(zoo))
    rows = max(1, chunk // spec.numel)
    total = Moments.empty(spec)
    buffer = torch.empty(min(rows, len(zoo)), spec.numel, dtype=spec.dtype)
    starts = range(0, len(zoo), rows)
    for start in progress(starts, desc="moments", unit="chunk"):
        part = None if checked is None else checked[start : start + rows]
        stop = min(start + rows, len(zoo))
        flat = zoo.flat(slice(start, stop), out=buffer[: stop - start])
        total = total.merge(Moments.of(spec, flat, part))
    return total


def moments_by_architecture(
    zoo: Zoo, weights: Tensor | np.ndarray | None = None, *, chunk: int = CHUNK
) -> dict[str, Moments]:
    """Moments of each architecture of a zoo; see `compute_moments`.

    Architectures whose checkpoints all have weight 0 are left out.
    """
    checked = None if weights is None else _check_weights(weights, len(zoo))
    kinds = np.array([row.architecture for row in zoo.rows])
    out = {}
    for key in zoo.architectures:
        members = np.flatnonzero(kinds == key)
        part = None if checked is None else checked[torch.from_numpy(members)]
        if part is None or bool(part.any()):
            out[key] = compute_moments(zoo[members], part, chunk=chunk)
    return out


def _check_weights(weights: Tensor | np.ndarray, count: int) -> Tensor:
    values = torch.as_tensor(weights, dtype=torch.float64)
    if values.shape != (count,):
        raise UsageError(
            f"the weights have shape {list(values.shape)}; the zoo has {count} checkpoints"
        )
    if not bool((values >= 0).all() & torch.isfinite(values).all()) or not bool(values.any()):
        raise UsageError("weights of checkpoints must be finite, at least 0, and not all 0")
    return values
