"""Matrices as copies of a tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from torch import Tensor

from hypergen.generators.graph.decoders import Made, MatrixDecoder, Normalize, Raw
from hypergen.generators.graph.plan import Group


class TilingDecoder(MatrixDecoder):
    """One tile of a matrix, cut to its size, and repeated where the matrix is larger.

    The decoder of GHN-2 and GHN-3 (Knyazev et al., arXiv:2110.13100 and arXiv:2303.04143), with
    kernels cut around their centre; only the positions that are needed are computed. Rows of layers
    wider than a tile are copies of each other, also in training, unless noise tells them apart: see
    `LowRankDecoder`.

    Args:
        dim: Width D of the nodes' vectors.
        tile: Rows and columns of a tile.
        features: Width H of the features that a tile is made of.
        normalize: See `MatrixDecoder`.
        noise: See `MatrixDecoder`.
    """

    def __init__(
        self,
        dim: int,
        tile: int = 64,
        features: int = 256,
        normalize: Normalize = "fan_in",
        noise: float = 0.0,
    ) -> None:
        super().__init__(dim, features, tile * tile, normalize, noise, tile)
        self.tile = tile

    @property
    def factor(self) -> int:
        """The rows of a tile."""
        return self.tile

    def raw(self, cores: Sequence[Tensor], groups: Sequence[Group]) -> Iterator[Raw]:
        """Mean squares of tiles, and the tiles `[n, o', c', K]`."""
        for core, group in zip(cores, groups, strict=True):
            tiles = core.unflatten(-1, (self.tile, self.tile))[..., : group.rows, : group.columns]
            tiles = tiles.permute(0, 2, 3, 1)
            yield tiles.square().mean((1, 2, 3)), partial(self._build, tiles)

    @staticmethod
    def _build(tiles: Tensor, factor: Tensor) -> tuple[None, Tensor]:
        return None, tiles * factor[:, None, None, None]

    def join(self, made: Made, group: Group) -> Tensor:
        """`[n, o, c · K]`."""
        tiles = _repeat(made.right, 1, group.rows)
        return _repeat(tiles, 2, group.columns).flatten(2)

    def write(self, made: Made, group: Group, out: Tensor) -> None:
        """Copies of the tiles, each number once."""
        wide = out.view(len(out), group.rows, group.columns, group.positions)
        if made.noise is not None:
            out.mul_(made.noise[:, None, None])
        tiles = made.right.contiguous()
        rows, columns = tiles.shape[1:3]
        whole = group.columns // columns * columns
        for start in range(0, group.rows, rows):
            band = wide[:, start : start + rows]
            own = tiles[:, : band.shape[1]]
            parts = []
            if whole:
                many = band[:, :, :whole].unflatten(2, (-1, columns))
                parts.append((many, own[:, :, None].expand_as(many)))
            if whole < group.columns:
                parts.append((band[:, :, whole:], own[:, :, : group.columns - whole]))
            for place, values in parts:
                if made.noise is None:
                    place.copy_(values)
                else:
                    place.add_(values)


def _repeat(tiles: Tensor, axis: int, count: int) -> Tensor:
    size = tiles.shape[axis]
    if size == count:
        return tiles
    times = [1] * tiles.dim()
    times[axis] = -(-count // size)
    return tiles.repeat(times).narrow(axis, 0, count)
