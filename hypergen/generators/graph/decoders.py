"""From vectors of nodes to weights: what all decoders share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError, WeightsError
from hypergen.generators.graph.codes import PositionCodes, kernel_offsets
from hypergen.generators.graph.noise import orthogonal_noise
from hypergen.generators.graph.plan import Group, Plan

Normalize = Literal["fan_in", "standard"]
Raw = tuple[Tensor, Callable[[Tensor], tuple[Tensor | None, Tensor]]]


@dataclass
class Made:
    """What a group's matrices are made of, small compared with them.

    Attributes:
        left: `[o, R]`, or None.
        right: `[P, R, c · K]`, with the scale in it; without `left` whatever the decoder reads.
        size: `[P]`, root mean square of each without noise: not finite where an entry is not.
        noise: `[P]`, standard deviation of the noise; None without any.
    """

    left: Tensor | None
    right: Tensor
    size: Tensor
    noise: Tensor | None


class MatrixDecoder(nn.Module, ABC):
    """Vectors of nodes → matrices and kernels.

    A vector `[D]`, times the code of a position of the kernel, makes features `[H]` (two layers
    with rectifiers), and those the numbers that a subclass builds its matrix of.

    Args:
        dim: Width D of the vectors.
        features: Width H.
        outputs: How many numbers each position of a kernel needs.
        normalize: `fan_in` multiplies by the standard deviation at the start, sqrt(β / fan_in),
            what is of variance about 1 (GHN-2); `standard` brings each tensor to exactly that
            standard deviation, times a learnt gain of each tensor.
        noise: Amount ν of fixed orthogonal noise; 0 for none. Of a matrix with m = min(rows,
            columns) above `freedom`, ν · (m - freedom) parts of the variance are noise at the
            start, and `freedom` parts are not; smaller ones have none. With 1 the noise fills the
            directions that are out of reach, and no singular value stands out: what is of low rank
            (or repeats) cannot drive the activations of wide networks up. From there each tensor
            learns its share.
        freedom: The rank of what a subclass builds.

    Raises:
        ConditionError: An option has a value that it cannot have.
    """

    def __init__(
        self,
        dim: int,
        features: int,
        outputs: int,
        normalize: Normalize,
        noise: float,
        freedom: int,
    ) -> None:
        super().__init__()
        if normalize not in get_args(Normalize):
            raise ConditionError(
                f"normalize={normalize!r}: choose from {', '.join(get_args(Normalize))}"
            )
        if noise < 0:
            raise ConditionError(f"noise={noise} is an amount: 0 or more")
        self.noise, self.freedom, self.outputs = noise, freedom, outputs
        self.inner = nn.Linear(dim, features)
        self.kernel = PositionCodes(features, "kernel", chirp=False, axes=3, fastest=2.0)
        self.outer = nn.Linear(features, features)
        self.weight = nn.Parameter(torch.randn(outputs, features) / math.sqrt(features))
        # Logarithm of each tensor's gain, and change of the log odds of its noise.
        self.gain = nn.Linear(dim, 1) if normalize == "standard" else None
        self.share = nn.Linear(dim, 1) if noise else None
        for layer in (self.inner, self.outer):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        for amount in (self.gain, self.share):
            if amount is not None:
                nn.init.zeros_(amount.weight)
                nn.init.zeros_(amount.bias)

    def cores(self, x: Tensor, groups: Sequence[Group]) -> list[Tensor]:
        """Numbers that matrices are built of, of all groups by one product.

        Args:
            x: `[P, D]`, vectors of the groups' parameters, one group after the other.
            groups: The groups.

        Returns:
            `[n, K, outputs]` for each.
        """
        sizes = [len(group) for group in groups]
        parts = self.inner(x).split(sizes)
        kinds: dict[tuple[int, ...], list[int]] = {}
        for i, group in enumerate(groups):
            kinds.setdefault(group.kernel, []).append(i)
        hidden = []
        for kernel, members in kinds.items():
            own = torch.cat([parts[i] for i in members])[:, None]
            if kernel:
                own = own * self.kernel(kernel_offsets(kernel, x.device))
            hidden.append(own.flatten(0, 1))
        features = torch.relu(self.outer(torch.relu(torch.cat(hidden))))
        order = [i for members in kinds.values() for i in members]
        rows = [sizes[i] * groups[i].positions for i in order]
        found = dict(zip(order, (features @ self.weight.T).split(rows), strict=True))
        return [found[i].unflatten(0, (sizes[i], -1)) for i in range(len(groups))]

    @property
    @abstractmethod
    def factor(self) -> int:
        """How many numbers the right part has at most for each column."""

    @abstractmethod
    def raw(self, cores: Sequence[Tensor], groups: Sequence[Group]) -> Iterator[Raw]:
        """Of each group the mean squares `[n]` of matrices of variance about 1, and their parts.

        Args:
            cores: What `cores` returned.
            groups: The groups.

        Yields:
            The squares, and a function of a factor `[n]` of each matrix that gives `left` and
            `right` of `Made`.
        """

    @abstractmethod
    def join(self, made: Made, group: Group) -> Tensor:
        """The matrices `[P, o, c · K]`, differentiably."""

    @abstractmethod
    def write(self, made: Made, group: Group, out: Tensor) -> None:
        """Writes the matrices into `out`, or adds them to the noise that is there, scaled."""

    def prepare(self, x: Tensor, groups: Sequence[Group]) -> list[Made]:
        """What the matrices of each group are made of.

        Args:
            x: `[P, D]`, vectors of the groups' parameters, one group after the other.
            groups: The groups.
        """
        if not groups:
            return []
        sizes = [len(group) for group in groups]
        std = torch.cat([group.std for group in groups]).to(x)
        if self.gain is not None:
            std = std * self.gain(x)[:, 0].exp()
        parts = list(self.raw(self.cores(x, groups), groups))
        square = torch.cat([own for own, _ in parts])
        scale = std if self.gain is None else std * (square + 1e-12).rsqrt()
        # Of each group by how much its matrices are wider than what a subclass builds.
        beyond = [min(g.rows, g.columns * g.positions) - self.freedom for g in groups]
        noise = None
        if self.share is not None and max(beyond) > 0:
            wide = torch.tensor(beyond).repeat_interleave(torch.tensor(sizes)).to(x)
            odds = self.share(x)[:, 0] + (wide.clamp(min=1) * (self.noise / self.freedom)).log()
            share = odds.sigmoid()
            noise = std * share.sqrt()
            scale = torch.where(wide > 0, scale * (1 - share).sqrt(), scale)
        made = []
        # No gradient at a matrix of zeros: the root is for the check alone.
        size = scale.detach() * square.detach().sqrt()
        for (_, build), wider, span in zip(parts, beyond, _spans(sizes), strict=True):
            own = noise[span] if noise is not None and wider > 0 else None
            made.append(Made(*build(scale[span]), size[span], own))
        return made

    def emit(
        self, made: Made, group: Group, rows: slice, seed: int, out: Tensor | None = None
    ) -> Tensor:
        """Matrices of a part of a group.

        Args:
            made: What `prepare` returned.
            group: The group.
            rows: Which of its parameters.
            seed: Seed of the noise.
            out: Contiguous `[n, o, c · K]` to write into, where no gradient is wanted.
        """
        noise = None if made.noise is None else made.noise[rows]
        part = Made(made.left, made.right[rows], made.size[rows], noise)
        if part.noise is None:
            if out is None:
                return self.join(part, group)
            self.write(part, group, out)
            return out
        keys = [f"{group.kernel} {rule.order}" for rule in group.rules[rows]]
        width = group.columns * group.positions
        if out is None:
            fixed = orthogonal_noise(group.rows, width, keys, seed).to(part.right)
            return torch.addcmul(self.join(part, group), fixed, part.noise[:, None, None])
        orthogonal_noise(group.rows, width, keys, seed, out)
        self.write(part, group, out)
        return out


def _spans(sizes: Sequence[int]) -> list[slice]:
    ends = list(accumulate(sizes, initial=0))
    return [slice(*pair) for pair in pairwise(ends)]


def check_finite(values: Tensor, group: Group) -> None:
    """Checks the numbers `[P, …]` of a group's parameters.

    Raises:
        WeightsError: Those of a parameter are not finite; names it.
    """
    # A sum is read off in one pass, and cannot be finite where an entry is not.
    if bool(torch.isfinite(values.sum())):
        return
    good = torch.isfinite(values).reshape(len(values), -1).all(1)
    for rule, finite in zip(group.rules, good.tolist(), strict=True):
        if not finite:
            raise WeightsError(f"parameter {rule.slot.name!r} comes out as NaN or infinity")


class VectorDecoder(nn.Module):
    """Vectors of nodes → scales around their mean, and shifts around 0.

    As in GHN-2, a scale is `mean · 2 · sigmoid(v / 2)` and a shift `tanh(0.2 · v)`.

    Args:
        dim: Width D of the vectors.
        rank: Width R of the codes of positions.
        table: How many positions have a learnt vector of their own.
    """

    def __init__(self, dim: int, rank: int, table: int) -> None:
        super().__init__()
        self.codes = PositionCodes(rank, "vectors", table=table)
        self.inner = nn.Linear(dim, 2 * dim)
        self.outer = nn.Linear(2 * dim, rank)
        nn.init.kaiming_normal_(self.inner.weight)
        nn.init.normal_(self.outer.weight, std=0.1 / math.sqrt(2 * dim * rank))
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor, plan: Plan) -> list[Tensor]:
        """`[P, D]` of all vectors → `[n, length]` of each group."""
        hidden = self.outer(torch.relu(self.inner(x)))
        out, start = [], 0
        codes = self.codes.first(max((group.rows for group in plan.vectors), default=0))
        for group in plan.vectors:
            values = hidden[start : start + len(group)] @ codes[: group.rows].T
            start += len(group)
            if group.form == "shift":
                out.append(torch.tanh(0.2 * values))
            else:
                out.append(group.mean.to(values)[:, None] * 2 * torch.sigmoid(values / 2))
        return out
