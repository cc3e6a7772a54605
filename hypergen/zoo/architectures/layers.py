"""Layers that the networks of an architecture space share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def norm2d(kind: str | None, channels: int) -> nn.Module:
    """Normalisation of `[N, C, H, W]`: `batch` (of the batch at hand), `layer`, or none."""
    if kind == "batch":
        return nn.BatchNorm2d(channels, track_running_stats=False)
    return nn.GroupNorm(1, channels) if kind == "layer" else nn.Identity()


def conv(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    *,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution whose output is as large as its input over the stride."""
    sizes = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (dilation * (sizes[0] - 1) // 2, dilation * (sizes[1] - 1) // 2)
    return nn.Conv2d(
        inputs, outputs, sizes, stride, padding, dilation=dilation, groups=groups, bias=bias
    )


class SqueezeExcite(nn.Module):
    """Scales channels by what all of the image says (Hu et al., CVPR 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        inner = max(4, channels // reduction)
        self.squeeze = nn.Linear(channels, inner)
        self.excite = nn.Linear(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` → the same."""
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * scale[:, :, None, None]


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al., NeurIPS 2017, arXiv:1706.03762)."""

    def __init__(self, dim: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, T, D]` → `[N, T, D]`."""
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two linear layers."""

    def __init__(self, dim: int, hidden: int, activation: str = "gelu") -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.activation = ACTIVATIONS[activation]()
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[…, D]` → `[…, D]`."""
        out: Tensor = self.down(self.activation(self.up(x)))
        return out


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, hidden: int, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, causal)
        self.mlp = FeedForward(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, T, D]` → `[N, T, D]`."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))
