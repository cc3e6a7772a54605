"""Matrices as products of codes of rows and columns: no tile, any width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from hypergen.generators.graph.codes import PositionCodes
from hypergen.generators.graph.decoders import Made, MatrixDecoder, Normalize, Raw
from hypergen.generators.graph.plan import Group


class LowRankDecoder(MatrixDecoder):
    """W = U · M · Vᵀ, with M `[R, R]` of each node and position of a kernel.

    Zhou, Knyazev et al., "LoGAH: Predicting 774-Million-Parameter Transformers using Graph
    HyperNetworks with 1/100 Parameters", 2024, arXiv:2405.16287. LoGAH predicts both factors from
    the node and expands them to its widest layer; here the codes of rows U and of columns V are
    shared by all nodes and known for any number, so that only the rows that a layer has are
    computed, and none repeats another. For layers of R rows and columns or fewer, every matrix can
    be reached, as with tiles.

    With `torch.set_float32_matmul_precision("medium")` the products take a fraction of the time
    where a processor multiplies bfloat16, for weights that are rounded to 2 or 3 digits.

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

    def raw(self, cores: Sequence[Tensor], groups: Sequence[Group]) -> Iterator[Raw]:
        """Mean squares of U M Vᵀ; U and M Vᵀ, or of few rows these matrices themselves."""
        left = self.left.first(max(group.rows for group in groups))
        right = self.right.first(max(group.columns for group in groups)) / self.rank
        grams: dict[tuple[int, int], Tensor] = {}

        def gram(side: int, count: int) -> Tensor:
            if (side, count) not in grams:
                codes = (left, right)[side][:count]
                grams[side, count] = codes.T @ codes / count
            return grams[side, count]

        for core, group in zip(cores, groups, strict=True):
            core = core.unflatten(-1, (self.rank, self.rank))  # [n, K, R, R]
            few = group.rows < self.rank  # fewer products from the left then
            own = left[: group.rows]
            if few:
                core = own @ core
            # tr(Mᵀ Uᵀ U M Vᵀ V), without the matrix itself.
            outer = core / group.rows if few else gram(0, group.rows) @ core
            square = (outer * (core @ gram(1, group.columns))).sum((2, 3)).mean(1).clamp(min=0)
            codes = right[: group.columns].T
            yield square, partial(self._build, None if few else own, core, codes)

    @staticmethod
    def _build(
        left: Tensor | None, core: Tensor, codes: Tensor, factor: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        product = (core * factor[:, None, None, None]) @ codes
        product = product.to(factor)  # products in mixed precision are of another dtype
        return left, product.permute(0, 2, 3, 1).flatten(2)

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
