"""Residual networks and ConvNeXts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from hypergen.zoo.architectures.base import Architecture
from hypergen.zoo.architectures.layers import ACTIVATIONS, FeedForward, SqueezeExcite, conv, norm2d


@dataclass(frozen=True)
class ResNet(Architecture):
    """Residual network (He et al., CVPR 2016, arXiv:1512.03385).

    Attributes:
        widths: Channels of each stage; from the second on, a stage halves the image.
        depths: Blocks of each stage.
        bottleneck: Whether blocks have three convolutions, the middle one narrow.
        norm: `batch`, `layer` or None.
        activation: `relu`, `gelu` or `silu`.
        squeeze: Whether channels are scaled at the end of a block.
        stem: Stride of the first convolution, 1 or 2.
    """

    family: ClassVar[str] = "resnet"
    group: ClassVar[str] = "convnets"

    widths: tuple[int, ...] = (16, 32)
    depths: tuple[int, ...] = (1, 1)
    bottleneck: bool = False
    norm: str | None = "batch"
    activation: str = "relu"
    squeeze: bool = False
    stem: int = 1

    def module(self) -> nn.Module:
        """A `ResNetwork`."""
        return ResNetwork(self)


class ResNetwork(nn.Module):
    """See `ResNet`."""

    def __init__(self, config: ResNet) -> None:
        super().__init__()
        first, norm = config.widths[0], config.norm
        self.stem = nn.Sequential(
            conv(config.signature.shape[0], first, 3, config.stem, bias=norm is None),
            norm2d(norm, first),
            ACTIVATIONS[config.activation](),
        )
        blocks = []
        inputs = first
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            for number in range(depth):
                stride = 2 if stage and number == 0 else 1
                blocks.append(ResidualBlock(inputs, width, stride, config))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, config.signature.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, classes]`."""
        out: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return out


class ResidualBlock(nn.Module):
    """Convolutions around which the input is added."""

    def __init__(self, inputs: int, outputs: int, stride: int, config: ResNet) -> None:
        super().__init__()
        norm, inner = config.norm, max(4, outputs // 4) if config.bottleneck else outputs
        shapes = (
            [(inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, outputs, 1, 1)]
            if config.bottleneck
            else [(inputs, inner, 3, stride), (inner, outputs, 3, 1)]
        )
        layers: list[nn.Module] = []
        for i, o, kernel, step in shapes:
            layers += [conv(i, o, kernel, step, bias=norm is None), norm2d(norm, o)]
            layers.append(ACTIVATIONS[config.activation]())
        self.layers = nn.Sequential(*layers[:-1])
        self.squeeze = SqueezeExcite(outputs) if config.squeeze else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            point = conv(inputs, outputs, 1, stride, bias=norm is None)
            self.shortcut = nn.Sequential(point, norm2d(norm, outputs))
        self.activation = ACTIVATIONS[config.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """`[N, inputs, H, W]` → `[N, outputs, H / stride, W / stride]`."""
        out: Tensor = self.activation(self.shortcut(x) + self.squeeze(self.layers(x)))
        return out


@dataclass(frozen=True)
class ConvNeXt(Architecture):
    """ConvNeXt (Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv:2201.03545).

    Attributes:
        widths: Channels of each stage; from the second on, a stage halves the image.
        depths: Blocks of each stage.
        kernel: Size of the depthwise convolutions.
        patch: Size and stride of the first convolution; divides the image's sides.
        expansion: Hidden units of a block, as a multiple of its width.
        layer_scale: Whether a block's output is scaled by channel.
    """

    family: ClassVar[str] = "convnext"
    group: ClassVar[str] = "convnets"

    widths: tuple[int, ...] = (16, 32)
    depths: tuple[int, ...] = (1, 1)
    kernel: int = 7
    patch: int = 2
    expansion: int = 4
    layer_scale: bool = False

    def module(self) -> nn.Module:
        """A `ConvNeXtNetwork`."""
        return ConvNeXtNetwork(self)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → the same."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtNetwork(nn.Module):
    """See `ConvNeXt`."""

    def __init__(self, config: ConvNeXt) -> None:
        super().__init__()
        first = config.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(config.signature.shape[0], first, config.patch, config.patch),
            ChannelNorm(first),
        )
        layers: list[nn.Module] = []
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            if stage:
                inputs = config.widths[stage - 1]
                layers += [ChannelNorm(inputs), nn.Conv2d(inputs, width, 2, 2)]
            layers += [ConvNeXtBlock(width, config) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(config.widths[-1])
        self.head = nn.Linear(config.widths[-1], config.signature.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, classes]`."""
        out: Tensor = self.head(self.norm(self.layers(self.stem(x)).mean((2, 3))))
        return out


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, then a perceptron on each pixel."""

    def __init__(self, width: int, config: ConvNeXt) -> None:
        super().__init__()
        self.conv = conv(width, width, config.kernel, groups=width, bias=True)
        self.norm = nn.LayerNorm(width)
        self.mlp = FeedForward(width, config.expansion * width)
        self.scale = nn.Parameter(torch.full((width,), 0.1)) if config.layer_scale else None

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → the same."""
        inner = self.mlp(self.norm(self.conv(x).permute(0, 2, 3, 1)))
        if self.scale is not None:
            inner = inner * self.scale
        return x + inner.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class MLP(Architecture):
    """Multi-layer perceptron on all pixels.

    Attributes:
        hidden: Units of each hidden layer.
        norm: `batch`, `layer` or None.
        activation: `relu`, `gelu` or `silu`.
    """

    family: ClassVar[str] = "mlp"
    group: ClassVar[str] = "mlps"

    hidden: tuple[int, ...] = (64, 64)
    norm: str | None = None
    activation: str = "relu"

    def module(self) -> nn.Module:
        """A stack of linear layers."""
        inputs = 1
        for size in self.signature.shape:
            inputs *= size
        layers: list[nn.Module] = [nn.Flatten()]
        for i, o in itertools.pairwise((inputs, *self.hidden)):
            layers.append(nn.Linear(i, o))
            if self.norm == "batch":
                layers.append(nn.BatchNorm1d(o, track_running_stats=False))
            elif self.norm == "layer":
                layers.append(nn.LayerNorm(o))
            layers.append(ACTIVATIONS[self.activation]())
        layers.append(nn.Linear(self.hidden[-1], self.signature.outputs))
        return nn.Sequential(*layers)
