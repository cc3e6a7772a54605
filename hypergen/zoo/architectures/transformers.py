"""Vision transformers and language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import UsageError
from hypergen.zoo.architectures.base import Architecture
from hypergen.zoo.architectures.layers import Block


def _check_heads(architecture: ViT | GPT | Llama) -> None:
    if architecture.dim % architecture.heads:
        raise UsageError(
            f"heads {architecture.heads} of {type(architecture).__name__} do not divide its dim "
            f"{architecture.dim}"
        )


@dataclass(frozen=True)
class ViT(Architecture):
    """Vision transformer (Dosovitskiy et al., ICLR 2021, arXiv:2010.11929).

    Attributes:
        patch: Height and width of a patch.
        dim: Width of the residual stream.
        depth: Blocks.
        heads: Attention heads; divides `dim`.
        mlp: Hidden units of a block's perceptron, as a multiple of `dim`.
        class_token: Whether a token of its own is read at the end, instead of the mean.
    """

    family: ClassVar[str] = "vit"
    group: ClassVar[str] = "vits"

    patch: int = 4
    dim: int = 32
    depth: int = 2
    heads: int = 2
    mlp: int = 2
    class_token: bool = False

    def __post_init__(self) -> None:
        _check_heads(self)

    def module(self) -> nn.Module:
        """A `VisionTransformer`."""
        return VisionTransformer(self)


class VisionTransformer(nn.Module):
    """See `ViT`."""

    def __init__(self, config: ViT) -> None:
        super().__init__()
        channels, height, width = config.signature.shape
        dim, patch = config.dim, config.patch
        count = (height // patch) * (width // patch)
        self.embed = nn.Conv2d(channels, dim, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim)) if config.class_token else None
        self.position = nn.Parameter(torch.empty(1, count + int(config.class_token), dim))
        nn.init.normal_(self.position, std=0.02)
        self.blocks = nn.Sequential(
            *(Block(dim, config.heads, config.mlp * dim) for _ in range(config.depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, config.signature.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, classes]`."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = self.norm(self.blocks(x + self.position))
        out: Tensor = self.head(x.mean(1) if self.token is None else x[:, 0])
        return out


@dataclass(frozen=True)
class GPT(Architecture):
    """Language model with learnt positions, layer norm and GELU, as GPT-2 (Radford et al., 2019).

    Attributes:
        dim: Width of the residual stream.
        depth: Blocks.
        heads: Attention heads; divides `dim`.
        mlp: Hidden units of a block's perceptron, as a multiple of `dim`.
        tied: Whether the output layer is the table of embeddings.
    """

    family: ClassVar[str] = "gpt"
    group: ClassVar[str] = "language models"

    dim: int = 64
    depth: int = 2
    heads: int = 2
    mlp: int = 4
    tied: bool = True

    def __post_init__(self) -> None:
        _check_heads(self)

    def module(self) -> nn.Module:
        """A `GPTNetwork`."""
        return GPTNetwork(self)


class GPTNetwork(nn.Module):
    """See `GPT`."""

    def __init__(self, config: GPT) -> None:
        super().__init__()
        dim = config.dim
        self.embed = nn.Embedding(config.signature.outputs, dim)
        self.position = nn.Parameter(torch.empty(config.signature.shape[0], dim))
        nn.init.normal_(self.position, std=0.02)
        nn.init.normal_(self.embed.weight, std=0.02)  # read as the output layer too
        self.blocks = nn.Sequential(
            *(Block(dim, config.heads, config.mlp * dim, causal=True) for _ in range(config.depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, config.signature.outputs, bias=False)
        if config.tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """`[N, T]` tokens → `[N, T, V]` logits of the next ones."""
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        out: Tensor = self.head(self.norm(self.blocks(x)))
        return out


@dataclass(frozen=True)
class Llama(Architecture):
    """Language model with rotary positions, RMS norm and gated units (arXiv:2302.13971).

    Attributes:
        dim: Width of the residual stream.
        depth: Blocks.
        heads: Attention heads; divides `dim` into even parts.
        kv_heads: Heads of keys and values; divides `heads`.
        hidden: Hidden units of a block's gated perceptron.
        tied: Whether the output layer is the table of embeddings.
    """

    family: ClassVar[str] = "llama"
    group: ClassVar[str] = "language models"

    dim: int = 64
    depth: int = 2
    heads: int = 2
    kv_heads: int = 2
    hidden: int = 128
    tied: bool = False

    def __post_init__(self) -> None:
        _check_heads(self)
        if self.heads % self.kv_heads or self.dim // self.heads % 2:
            raise UsageError(
                f"kv_heads {self.kv_heads} of Llama must divide its heads {self.heads}, and heads "
                f"must be of an even width, not {self.dim // self.heads}"
            )

    def module(self) -> nn.Module:
        """A `LlamaNetwork`."""
        return LlamaNetwork(self)


class LlamaNetwork(nn.Module):
    """See `Llama`."""

    def __init__(self, config: Llama) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.signature.outputs, config.dim)
        nn.init.normal_(self.embed.weight, std=0.02)  # may be read as the output layer too
        self.blocks = nn.Sequential(*(LlamaBlock(config) for _ in range(config.depth)))
        self.norm = nn.RMSNorm(config.dim)
        self.head = nn.Linear(config.dim, config.signature.outputs, bias=False)
        if config.tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """`[N, T]` tokens → `[N, T, V]` logits of the next ones."""
        out: Tensor = self.head(self.norm(self.blocks(self.embed(tokens))))
        return out


class LlamaBlock(nn.Module):
    """Attention with rotary positions, then a gated perceptron."""

    def __init__(self, config: Llama) -> None:
        super().__init__()
        dim, size = config.dim, config.dim // config.heads
        self.size, self.groups = size, config.heads // config.kv_heads
        self.norm1, self.norm2 = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, config.kv_heads * size, bias=False)
        self.value = nn.Linear(dim, config.kv_heads * size, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.gate = nn.Linear(dim, config.hidden, bias=False)
        self.up = nn.Linear(dim, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, T, D]` → `[N, T, D]`."""
        y = self.norm1(x)
        query, key, value = (
            f(y).unflatten(-1, (-1, self.size)).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        query, key = rotate(query), rotate(key)
        if self.groups > 1:
            key, value = (z.repeat_interleave(self.groups, 1) for z in (key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2021, arXiv:2104.09864) of `[N, H, T, D]`."""
    half = x.shape[-1] // 2
    steps = torch.arange(half, device=x.device, dtype=torch.float32)
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * 10000.0 ** (-steps / half)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
