"""Small networks that denoise every token by itself, given its prototype."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenMLP(nn.Module):
    """An MLP with residual blocks, shared by all tokens.

    The prototype is added in front of every block (what of it depends on no noise is computed once,
    `inject`); time scales, shifts and gates the blocks.

    Args:
        dim: Width D of a token.
        width: Width of a prototype, and of the embedding of time.
        hidden: Width of the blocks.
        depth: Number of blocks.
    """

    def __init__(self, dim: int, width: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.hidden, self.depth = hidden, depth
        self.enter = nn.Linear(dim, hidden)
        self.prototype = nn.Linear(width, (depth + 1) * hidden)
        self.time = nn.Linear(width, 3 * depth * hidden)
        self.up = nn.ModuleList(nn.Linear(hidden, 2 * hidden) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(depth))
        self.leave = nn.Linear(hidden, dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def inject(self, prototypes: Tensor) -> tuple[Tensor, ...]:
        """Prototypes `[B, T, width]` → what each block adds, `[B, T, hidden]`."""
        return self.prototype(prototypes).split(self.hidden, dim=-1)

    def forward(self, x: Tensor, time: Tensor, injected: tuple[Tensor, ...]) -> Tensor:
        """`[B, T, D]`, time `[B, width]` → `[B, T, D]`."""
        moves = self.time(F.silu(time))[:, None].split(self.hidden, dim=-1)
        h = self.enter(x) + injected[0]
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            scale, shift, gate = moves[3 * i : 3 * i + 3]
            u = F.layer_norm(h, (self.hidden,)) * (1 + scale) + shift + injected[i + 1]
            h = h + (1 + gate) * down(F.silu(up(u)))
        out: Tensor = self.leave(F.layer_norm(h, (self.hidden,)))
        return out


class TokenConv(nn.Module):
    """A one-dimensional convolutional network along the numbers of a token, as in RPG.

    Every layer works on (input + prototype) · time, the prototype as a signal of D numbers, time as
    a factor for each channel.

    Args:
        dim: Width D of a token.
        width: Width of a prototype, and of the embedding of time.
        hidden: Channels.
        depth: Layers between the first and the last.
        kernel: Width of the filters, odd.
    """

    def __init__(self, dim: int, width: int, hidden: int, depth: int, kernel: int = 7) -> None:
        super().__init__()
        self.dim = dim
        channels = [1, *[hidden] * (depth + 1), 1]
        self.sizes = channels[:-1]
        layers = [
            nn.Conv1d(i, o, kernel, padding=kernel // 2) for i, o in itertools.pairwise(channels)
        ]
        # Signals keep their size through the layers.
        for layer in layers[:-1]:
            nn.init.normal_(layer.weight, std=math.sqrt(2 / (layer.in_channels * kernel)))
        nn.init.zeros_(layers[-1].weight)
        assert layers[-1].bias is not None
        nn.init.zeros_(layers[-1].bias)
        self.layers = nn.ModuleList(layers)
        self.prototype = nn.Linear(width, len(self.layers) * dim)
        self.time = nn.Linear(width, sum(self.sizes))

    def inject(self, prototypes: Tensor) -> tuple[Tensor, ...]:
        """Prototypes `[B, T, width]` → what each layer adds, `[B, T, D]`."""
        return self.prototype(prototypes).split(self.dim, dim=-1)

    def forward(self, x: Tensor, time: Tensor, injected: tuple[Tensor, ...]) -> Tensor:
        """`[B, T, D]`, time `[B, width]` → `[B, T, D]`."""
        batch, tokens = x.shape[:2]
        factors = self.time(F.silu(time)).split(self.sizes, dim=-1)
        h = x.flatten(0, 1)[:, None]
        for i, (layer, factor) in enumerate(zip(self.layers, factors, strict=True)):
            scale = (1 + factor).repeat_interleave(tokens, 0)[..., None]
            u = (h + injected[i].flatten(0, 1)[:, None]) * scale
            new = layer(u)
            last = i == len(self.layers) - 1
            h = new if last else F.silu(new) + (h if h.shape == new.shape else 0)
        return h.view(batch, tokens, -1)


def position_codes(positions: Tensor, frequencies: int = 8) -> Tensor:
    """Sines and cosines of layer, slot and number: `[T, 3]` → `[T, 6 · frequencies + 3]`."""
    values = positions.float()
    rates = 0.25 * 1.8 ** torch.arange(frequencies, device=values.device)
    angle = values[..., None] * rates
    # Logarithms tell tokens far down a long slot apart without leaving the usual range.
    return torch.cat([values.log1p()[..., None], angle.sin(), angle.cos()], dim=-1).flatten(1)
