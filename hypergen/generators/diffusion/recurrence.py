"""Sequence models over the tokens of a network, in both directions."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import SpecError, did_you_mean
from hypergen.generators.diffusion.selective_scan import scan

Backend = Literal["lstm", "transformer", "mamba"]


def make_recurrence(backend: str, width: int, depth: int, heads: int) -> nn.Module:
    """A sequence model `[B, T, width]` → `[B, T, width]` of whose outputs each reads all inputs.

    Args:
        backend: `"lstm"`, `"transformer"` or `"mamba"`.
        width: Width of a token.
        depth: Number of layers.
        heads: Attention heads, or heads of the scan in each direction.

    Raises:
        SpecError: An unknown backend, or a width that the heads do not divide.
    """
    layers: dict[str, Any] = {"lstm": LSTMBlock, "transformer": AttentionBlock, "mamba": ScanBlock}
    if backend not in layers:
        raise SpecError(f"no backend {backend!r}.{did_you_mean(backend, get_args(Backend))}")
    if width % (2 * heads):
        raise SpecError(f"width {width} is no multiple of 2 · {heads} heads")
    return nn.Sequential(*(layers[backend](width, heads) for _ in range(depth)))


class LSTMBlock(nn.Module):
    """A residual LSTM that reads from both ends (Hochreiter and Schmidhuber, 1997).

    Args:
        width: Width of a token.
        heads: Unused; all backends are made alike.
    """

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, width]` → `[B, T, width]`."""
        out: Tensor = x + self.lstm(self.norm(x))[0]
        return out


class AttentionBlock(nn.Module):
    """Self-attention over all tokens and a small network (Vaswani et al., 2017, arXiv:1706.03762).

    Args:
        width: Width of a token.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(approximate="tanh"), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, width]` → `[B, T, width]`."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).transpose(1, 3)
        q, k, v = qkv.unbind(2)  # [B, heads, T, width / heads]
        mixed = F.scaled_dot_product_attention(q, k, v)  # divides by the root of the head's width
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


class ScanBlock(nn.Module):
    """A selective state space in both directions, half of the channels in each.

    Gu and Dao, "Mamba", 2023, arXiv:2312.00752, in the form of Mamba-2 (arXiv:2405.21060): step
    sizes, input and output projections depend on the token; each head has one rate of decay; a
    short convolution comes before and a gate behind. Both directions are one call of the scan.

    Args:
        width: Width of a token; the scan is twice as wide.
        heads: Heads in each direction.
        state: Size N of a head's state for each channel.
        kernel: Width of the convolution over tokens.
    """

    def __init__(self, width: int, heads: int, state: int = 16, kernel: int = 3) -> None:
        super().__init__()
        self.heads, self.state, self.inner = heads, state, 2 * width
        self.norm = nn.LayerNorm(width)
        self.mixed = self.inner + 4 * state  # of each direction: width channels, in, out
        self.project = nn.Linear(width, self.inner + self.mixed + 2 * heads)
        self.conv = nn.Conv1d(
            self.mixed, self.mixed, kernel, groups=self.mixed, padding=kernel // 2
        )
        # Rates and steps as Mamba starts them: memories of a few to a few hundred tokens.
        self.log_rate = nn.Parameter(torch.linspace(0, math.log(16), heads))
        step = torch.exp(torch.linspace(math.log(1e-3), math.log(1e-1), heads)).repeat(2)
        self.step_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.skip = nn.Parameter(torch.ones(self.inner))
        self.gate_norm = nn.RMSNorm(self.inner)
        self.out = nn.Linear(self.inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, width]` → `[B, T, width]`."""
        sizes = [self.inner, self.mixed, 2 * self.heads]
        gate, mixed, step = self.project(self.norm(x)).split(sizes, dim=-1)
        mixed = F.silu(self.conv(mixed.mT).mT)
        values, read = mixed.split([self.inner, 4 * self.state], dim=-1)
        step = F.softplus(step + self.step_bias)

        def directions(t: Tensor) -> Tensor:
            """`[B, T, 2 C]` → `[2 B, T, C]`, the second half from the end."""
            there, back = t.chunk(2, dim=-1)
            return torch.cat([there, back.flip(1)])

        read_in, read_out = directions(read).chunk(2, dim=-1)
        scanned = scan(
            directions(values).unflatten(-1, (self.heads, -1)),
            directions(step),
            -self.log_rate.exp(),
            read_in,
            read_out,
        ).flatten(2)
        there, back = scanned.chunk(2)
        y = torch.cat([there, back.flip(1)], dim=-1) + self.skip * values
        out: Tensor = x + self.out(self.gate_norm(y * F.silu(gate)))
        return out
