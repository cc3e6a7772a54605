"""Networks of searched-for cells, as those of DeepNets-1M."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen.zoo.architectures.base import Architecture
from hypergen.zoo.architectures.layers import Attention, SqueezeExcite, conv, norm2d

OPS = (
    "skip",
    "max_pool_3",
    "avg_pool_3",
    "conv_1",
    "conv_3",
    "conv_5",
    "conv_7_1",
    "sep_conv_3",
    "sep_conv_5",
    "dil_conv_3",
    "dil_conv_5",
    "squeeze_excite",
    "attention",
)

Edge = tuple[str, int]  # an operation, and the state that it reads
Cell = tuple[tuple[Edge, ...], ...]  # for each step the edges that it sums


@dataclass(frozen=True)
class CellNet(Architecture):
    """A stack of equal cells, at two of which the image is halved and the width doubled.

    Each cell reads the outputs of the two before it; each of its steps sums operations on earlier
    states, and all steps are concatenated (Liu et al., "DARTS", ICLR 2019, arXiv:1806.09055;
    operations as in DeepNets-1M, Knyazev et al., NeurIPS 2021, arXiv:2110.13100).

    Attributes:
        channels: Width of the first cells.
        cells: Number of cells.
        normal: Steps of a cell.
        reduce: Steps of a cell that halves the image, as many.
        norm: `batch`, `layer` or None.
        stem: Stride of the first convolution, 1 or 2.
        head: Hidden units of the classifier; 0 for a linear one.

    Raises:
        UsageError: An unknown operation, or a step that reads a later state.
    """

    family: ClassVar[str] = "cells"
    group: ClassVar[str] = "convnets"

    channels: int = 16
    cells: int = 4
    normal: Cell = ((("conv_3", 0), ("skip", 1)),)
    reduce: Cell = ((("conv_3", 0), ("skip", 1)),)
    norm: str | None = "batch"
    stem: int = 1
    head: int = 0

    def __post_init__(self) -> None:
        for cell in (self.normal, self.reduce):
            for number, step in enumerate(cell):
                for op, source in step:
                    if op not in OPS:
                        raise UsageError(f"unknown operation {op!r}.{did_you_mean(op, OPS)}")
                    if not 0 <= source < number + 2:
                        raise UsageError(
                            f"step {number} of a cell reads state {source}: there are "
                            f"{number + 2} before it"
                        )

    def module(self) -> nn.Module:
        """A `CellNetwork`."""
        return CellNetwork(self)


class CellNetwork(nn.Module):
    """See `CellNet`."""

    def __init__(self, config: CellNet) -> None:
        super().__init__()
        width, norm = config.channels, config.norm
        bias = norm is None
        self.stem = nn.Sequential(
            conv(config.signature.shape[0], width, 3, config.stem, bias=bias), norm2d(norm, width)
        )
        halving = {config.cells // 3, 2 * config.cells // 3} if config.cells > 2 else {0}
        # Of the last two states: channels, and how often the image was halved.
        before, last = (width, 0), (width, 0)
        self.cells = nn.ModuleList()
        halved = 0
        for number in range(config.cells):
            reduces = number in halving
            width *= 2 if reduces else 1
            cell = config.reduce if reduces else config.normal
            self.cells.append(CellModule(cell, before, last, width, reduces, norm))
            halved += int(reduces)
            before, last = last, (width * len(cell), halved)
        out = config.signature.outputs
        self.head = (
            nn.Sequential(nn.Linear(last[0], config.head), nn.ReLU(), nn.Linear(config.head, out))
            if config.head
            else nn.Linear(last[0], out)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, classes]`."""
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last)
        out: Tensor = self.head(last.mean((2, 3)))
        return out


class CellModule(nn.Module):
    """One cell; both inputs are brought to its width and to the size of the newer one."""

    def __init__(
        self,
        cell: Cell,
        before: tuple[int, int],
        last: tuple[int, int],
        width: int,
        reduces: bool,
        norm: str | None,
    ) -> None:
        super().__init__()
        read = {source for step in cell for _, source in step}
        self.adapt = nn.ModuleList(
            ConvNorm(channels, width, 1, 2 ** (last[1] - halved), norm=norm)
            if state in read
            else nn.Identity()
            for state, (channels, halved) in enumerate((before, last))
        )
        self.steps = nn.ModuleList(Step(step, width, reduces, norm) for step in cell)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """The outputs of the two cells before → `[N, steps · width, H, W]`."""
        states = [adapt(x) for adapt, x in zip(self.adapt, (before, last), strict=True)]
        for step in self.steps:
            states.append(step(states))
        return torch.cat(states[2:], 1)


class Step(nn.Module):
    """The sum of operations on earlier states."""

    def __init__(
        self, edges: tuple[Edge, ...], width: int, reduces: bool, norm: str | None
    ) -> None:
        super().__init__()
        self.sources = [source for _, source in edges]
        self.ops = nn.ModuleList(
            operation(op, width, 2 if reduces and source < 2 else 1, norm) for op, source in edges
        )

    def forward(self, states: list[Tensor]) -> Tensor:
        """States `[N, C, H, W]` → their successor."""
        parts = [op(states[at]) for op, at in zip(self.ops, self.sources, strict=True)]
        total: Tensor = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


class ConvNorm(nn.Module):
    """ReLU, convolutions, normalisation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        *,
        dilation: int = 1,
        depthwise: bool = False,
        norm: str | None = "batch",
    ) -> None:
        super().__init__()
        bias = norm is None
        first = outputs if not depthwise else inputs
        groups = inputs if depthwise else 1
        self.conv = conv(inputs, first, kernel, stride, dilation=dilation, groups=groups, bias=bias)
        self.point = conv(inputs, outputs, 1, bias=bias) if depthwise else nn.Identity()
        self.norm = norm2d(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, inputs, H, W]` → `[N, outputs, H / stride, W / stride]`."""
        out: Tensor = self.norm(self.point(self.conv(F.relu(x))))
        return out


class Separated(nn.Module):
    """A convolution along one axis, then one along the other."""

    def __init__(self, width: int, size: int, stride: int, norm: str | None) -> None:
        super().__init__()
        bias = norm is None
        self.across = conv(width, width, (1, size), stride, bias=bias)
        self.down = conv(width, width, (size, 1), bias=bias)
        self.norm = norm2d(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → the same over the stride."""
        out: Tensor = self.norm(self.down(self.across(F.relu(x))))
        return out


class Pool(nn.Module):
    """Largest or mean of 3 × 3 pixels."""

    def __init__(self, largest: bool, stride: int) -> None:
        super().__init__()
        self.largest, self.stride = largest, stride

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → the same over the stride."""
        if self.largest:
            return F.max_pool2d(x, 3, self.stride, 1)
        return F.avg_pool2d(x, 3, self.stride, 1, count_include_pad=False)


class SpatialAttention(nn.Module):
    """Self-attention between pixels."""

    def __init__(self, width: int, stride: int, norm: str | None) -> None:
        super().__init__()
        self.down = Pool(False, stride) if stride > 1 else nn.Identity()
        self.norm = nn.LayerNorm(width) if norm is not None else nn.Identity()
        heads = next((h for h in (4, 2) if width % h == 0 and width // h >= 8), 1)
        self.attention = Attention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → the same over the stride."""
        x = self.down(x)
        mixed = self.attention(self.norm(x.flatten(2).transpose(1, 2)))
        return x + mixed.transpose(1, 2).unflatten(2, x.shape[2:])


def operation(name: str, width: int, stride: int, norm: str | None) -> nn.Module:
    """The module of an operation; with stride 2 it halves the image."""
    if name == "skip":
        return nn.Identity() if stride == 1 else ConvNorm(width, width, 1, stride, norm=norm)
    if name in ("max_pool_3", "avg_pool_3"):
        return Pool(name == "max_pool_3", stride)
    if name == "conv_7_1":
        return Separated(width, 7, stride, norm)
    if name == "squeeze_excite":
        scale = SqueezeExcite(width)
        return scale if stride == 1 else nn.Sequential(Pool(False, stride), scale)
    if name == "attention":
        return SpatialAttention(width, stride, norm)
    kind, _, size = name.rpartition("_")
    return ConvNorm(
        width,
        width,
        int(size),
        stride,
        dilation=2 if kind == "dil_conv" else 1,
        depthwise=kind != "conv",
        norm=norm,
    )
