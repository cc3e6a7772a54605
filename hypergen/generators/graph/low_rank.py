"""Matrices as products of codes of rows and columns: no tile, any width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hypergen.generators.graph.codes import PositionCodes
from hypergen.generators.graph.decoders import Made, MatrixDecoder, Normalize
from hypergen.generators.graph.plan import Group


class LowRankDecoder(MatrixDecoder):
    """W = U · M · Vᵀ, with M `[R, R]` of each node and position of a kernel.

    Zhou, Knyazev et al., "LoGAH: Predicting 774-Million-Parameter Transformers using Graph
    HyperNetworks with 1/100 Parameters", 2024, arXiv:2405.16287. LoGAH predicts both factors from
    the node and expands them to its widest layer; here the codes of rows U and of columns V are
    shared by all nodes and known for any number, so that only the rows that a layer has are
    computed, and none repeats another. For layers of R rows and columns or fewer, every matrix can
    be reached, as with tiles.

    Args:
        dim: Width D of the nodes' vectors.
        rank: R.
        features: Width H of the features that M is made of.
        table: How many rows and columns have a learnt vector of their own.
        normalize: See `MatrixDecoder`.
        noise: See `MatrixDecoder`.
    """

    def __init__(
        self,
        dim: int,
        rank: int = 64,
        features: int = 256,
        table: int = 128,
        normalize: Normalize = "standard",
        noise: float = 1.0,
    ) -> None:
        super().__init__(dim, features, rank * rank, normalize, noise, rank)
        self.rank = rank
        self.left = PositionCodes(rank, "rows", table=table)
        self.right = PositionCodes(rank, "columns", table=table)

    @property
    def factor(self) -> int:
        """R rows."""
        return self.rank

    def raw(
        self, cores: Sequence[Tensor], groups: Sequence[Group]
    ) -> Iterator[tuple[Tensor | None, Tensor, Tensor]]:
        """U, M Vᵀ and the mean squares of U M Vᵀ; of few rows these matrices themselves."""
        left = self.left.first(max(group.rows for group in groups))
        right = self.right.first(max(group.columns for group in groups)) / self.rank
        grams: dict[tuple[str, int], Tensor] = {}

        def gram(side: str, codes: Tensor, count: int) -> Tensor:
            key = side, count
            if key not in grams:
                grams[key] = codes[:count].T @ codes[:count] / count
            return grams[key]

        for core, group in zip(cores, groups, strict=True):
            core = core.unflatten(-1, (self.rank, self.rank))  # [n, K, R, R]
            codes = right[: group.columns].T
            if group.rows < self.rank:  # by far the fewer products, from the left
                whole = (left[: group.rows] @ core @ codes).permute(0, 2, 3, 1).flatten(2)
                yield None, whole, whole.square().mean((1, 2))
                continue
            # tr(Mᵀ Uᵀ U M Vᵀ V), without the matrix itself.
            rows = gram("rows", left, group.rows) @ core
            columns = core @ gram("columns", right, group.columns)
            square = (rows * columns).sum((2, 3)).mean(1).clamp(min=0)
            yield left[: group.rows], (core @ codes).permute(0, 2, 3, 1).flatten(2), square

    def join(self, made: Made, group: Group) -> Tensor:
        """`[n, o, c · K]`."""
        return made.right if made.left is None else made.left @ made.right

    def write(self, made: Made, group: Group, out: Tensor) -> None:
        """One product for each matrix, which the noise is added to in passing."""
        if made.left is None:
            out.copy_(made.right)
        elif made.noise is None:
            for one, right in zip(out, made.right, strict=True):
                torch.mm(made.left, right, out=one)
        else:
            for one, right, amount in zip(out, made.right, made.noise.tolist(), strict=True):
                one.addmm_(made.left, right, beta=amount)
