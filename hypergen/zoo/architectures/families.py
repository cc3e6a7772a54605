"""How an architecture of each family is drawn."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from hypergen.zoo.architectures.base import Architecture, Signature
from hypergen.zoo.architectures.cells import OPS, Cell, CellNet
from hypergen.zoo.architectures.convnets import MLP, ConvNeXt, ResNet
from hypergen.zoo.architectures.transformers import GPT, Llama, ViT

_LARGEST_MAP = 256  # pixels between which attention is affordable


@dataclass(frozen=True)
class Limits:
    """Of what a draw may be made.

    Attributes:
        width: Least and most channels of the first layer of a convnet; transformers are twice and
            perceptrons four times as wide.
        depth: Least and most cells, blocks or hidden layers.
        steps: Least and most steps of a cell.
        edges: Least and most operations that a step sums.
        norm: Normalisations to draw from, with repetition; None is none.
    """

    width: tuple[int, int]
    depth: tuple[int, int]
    steps: tuple[int, int] = (1, 4)
    edges: tuple[int, int] = (1, 2)
    norm: tuple[str | None, ...] = ("batch",)


def _width(draw: random.Random, limits: Limits) -> int:
    """A width, uniform in its logarithm: a multiple of 4, of 2 below 16."""
    low, high = limits.width
    value = math.exp(draw.uniform(math.log(low), math.log(high + 1)))
    multiple = 4 if value >= 16 else 2
    return max(low, min(high, round(value / multiple) * multiple))


def _stages(draw: random.Random, limits: Limits, most: int) -> tuple[list[int], list[int]]:
    """Widths and depths of the stages of a convnet."""
    depth = draw.randint(*limits.depth)
    count = draw.randint(1, min(most, depth))
    width = _width(draw, limits)
    depths = [1] * count
    for _ in range(depth - count):
        depths[draw.randrange(count)] += 1
    return [width * 2**i for i in range(count)], depths


def _halvings(signature: Signature) -> int:
    """How often an image can be halved."""
    return max(0, int(math.log2(min(signature.shape[1:]))) - 1)


def _cell(draw: random.Random, limits: Limits, steps: int, attention: bool) -> Cell:
    ops = [op for op in OPS if attention or op != "attention"]
    cell = []
    for number in range(steps):
        count = draw.randint(*limits.edges)
        # The state before, so that cells are deep, and any others.
        sources = [number + 1, *(draw.randrange(number + 2) for _ in range(count - 1))]
        cell.append(tuple((draw.choice(ops), source) for source in sources))
    return tuple(cell)


def cells(draw: random.Random, signature: Signature, limits: Limits) -> Architecture:
    """Networks of DARTS-like cells."""
    steps = draw.randint(*limits.steps)
    stem = draw.choice((1, 2)) if min(signature.shape[1:]) >= 16 else 1
    area = signature.shape[1] * signature.shape[2] // stem**2
    attention = area <= _LARGEST_MAP
    return CellNet(
        signature,
        channels=_width(draw, limits),
        cells=draw.randint(*limits.depth),
        normal=_cell(draw, limits, steps, attention),
        reduce=_cell(draw, limits, steps, attention),
        norm=draw.choice(limits.norm),
        stem=stem,
        head=draw.choice((0, 0, 0, 4 * limits.width[0])),
    )


def resnet(draw: random.Random, signature: Signature, limits: Limits) -> Architecture:
    """Residual networks."""
    widths, depths = _stages(draw, limits, min(3, 1 + _halvings(signature)))
    return ResNet(
        signature,
        widths=tuple(widths),
        depths=tuple(depths),
        bottleneck=draw.random() < 0.3,
        norm=draw.choice(limits.norm),
        activation=draw.choice(("relu", "relu", "gelu", "silu")),
        squeeze=draw.random() < 0.3,
        stem=draw.choice((1, 2)) if min(signature.shape[1:]) >= 16 else 1,
    )


def convnext(draw: random.Random, signature: Signature, limits: Limits) -> Architecture:
    """ConvNeXts."""
    # Of patches of one pixel with one channel, layer norm would leave the sign alone.
    patch = draw.choice([p for p in (2, 4) if min(signature.shape[1:]) // p >= 4] or [2])
    left = max(1, int(math.log2(max(1, min(signature.shape[1:]) // patch))))
    widths, depths = _stages(draw, limits, min(3, left))
    return ConvNeXt(
        signature,
        widths=tuple(widths),
        depths=tuple(depths),
        kernel=draw.choice((3, 5, 7)),
        patch=patch,
        expansion=draw.choice((2, 3, 4)),
        layer_scale=draw.random() < 0.5,
    )


def vit(draw: random.Random, signature: Signature, limits: Limits) -> Architecture:
    """Vision transformers."""
    sides = signature.shape[1:]
    patches = [
        p
        for p in (1, 2, 4, 7, 8)
        if all(s % p == 0 for s in sides) and 4 <= sides[0] * sides[1] // p**2 <= 2 * _LARGEST_MAP
    ]
    heads = draw.choice((1, 2, 4))
    return ViT(
        signature,
        patch=draw.choice(patches[-2:]),
        dim=_dim(2 * _width(draw, limits), heads),
        depth=draw.randint(*limits.depth),
        heads=heads,
        mlp=draw.choice((1, 2, 3, 4)),
        class_token=draw.random() < 0.3,
    )


def mlp(draw: random.Random, signature: Signature, limits: Limits) -> Architecture:
    """Multi-layer perceptrons."""
    widths = [4 * _width(draw, limits) for _ in range(draw.randint(*limits.depth))]
    return MLP(
        signature,
        hidden=tuple(widths),
        norm=draw.choice((None, *limits.norm, "layer")),
        activation=draw.choice(("relu", "relu", "gelu", "silu")),
    )


def gpt(draw: random.Random, signature: Signature, limits: Limits) -> Architecture:
    """Language models like GPT-2."""
    heads = draw.choice((1, 2, 4, 8))
    return GPT(
        signature,
        dim=_dim(2 * _width(draw, limits), heads),
        depth=draw.randint(*limits.depth),
        heads=heads,
        mlp=draw.choice((2, 3, 4)),
        tied=draw.random() < 0.5,
    )


def llama(draw: random.Random, signature: Signature, limits: Limits) -> Architecture:
    """Language models like Llama."""
    heads = draw.choice((1, 2, 4, 8))
    dim = _dim(2 * _width(draw, limits), heads)
    return Llama(
        signature,
        dim=dim,
        depth=draw.randint(*limits.depth),
        heads=heads,
        kv_heads=draw.choice([h for h in (1, 2, 4, 8) if heads % h == 0]),
        hidden=dim * draw.choice((2, 3, 4)),
        tied=draw.random() < 0.5,
    )


def _dim(width: int, heads: int) -> int:
    """A width that heads divide into even parts of at least 4."""
    part = 4 * heads
    return max(part, round(width / part) * part)


Family = Callable[[random.Random, Signature, Limits], Architecture]
FAMILIES: dict[str, Family] = {
    "cells": cells,
    "resnet": resnet,
    "convnext": convnext,
    "vit": vit,
    "mlp": mlp,
    "gpt": gpt,
    "llama": llama,
}
TOKENS = frozenset(["gpt", "llama"])  # the others read images
NORMALISED = frozenset(["cells", "resnet"])  # exist without normalisation too
# Families that share a learning rate; the same as `Architecture.group`.
GROUPS: dict[str, tuple[str, ...]] = {
    "convnets": ("cells", "resnet", "convnext"),
    "vits": ("vit",),
    "mlps": ("mlp",),
    "language models": ("gpt", "llama"),
}
