"""Small vision transformers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import UsageError
from hypergen.specs import Slot
from hypergen.zoo.canonical.symmetry import PermutationGroup, Place, Symmetry, group
from hypergen.zoo.networks.base import Network, size, sizes


class Attention(nn.Module):
    """Multi-head self-attention with separate projections, so that heads are blocks of rows."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, T, dim]` → `[N, T, dim]`."""
        split = [f(x).unflatten(-1, (self.heads, -1)) for f in (self.query, self.key, self.value)]
        query, key, value = (part.transpose(-3, -2) for part in split)
        # Written out: the fused kernels have no batching rule under vmap of grad.
        scores = (query @ key.mT) * query.shape[-1] ** -0.5
        mixed = (scores.softmax(-1) @ value).transpose(-3, -2).flatten(-2)
        out: Tensor = self.out(mixed)
        return out


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer perceptron."""

    def __init__(self, dim: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, mlp)
        self.fc2 = nn.Linear(mlp, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, T, dim]` → `[N, T, dim]`."""
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Patches, blocks, average pooling, a linear layer; see `ViT`."""

    def __init__(self, net: ViT) -> None:
        super().__init__()
        channels, height, width = net.image
        self.patch = net.patch
        tokens = (height // net.patch) * (width // net.patch)
        self.embed = nn.Linear(channels * net.patch**2, net.dim)
        self.position = nn.Parameter(torch.zeros(tokens, net.dim))
        self.blocks = nn.Sequential(*(Block(net.dim, net.heads, net.mlp) for _ in range(net.depth)))
        self.norm = nn.LayerNorm(net.dim)
        self.head = nn.Linear(net.dim, net.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → `[N, outputs]`."""
        n, channels, height, width = x.shape
        p = self.patch
        # A linear layer on cut patches: a convolution would be a slow grouped one under vmap.
        patches = x.reshape(n, channels, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5)
        tokens = self.embed(patches.reshape(n, -1, channels * p * p)) + self.position
        out: Tensor = self.head(self.norm(self.blocks(tokens)).mean(-2))
        return out


@dataclass(frozen=True)
class ViT(Network):
    """Images `[N, C, H, W]` → `[N, outputs]` by a pre-norm transformer over patches.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv:2010.11929, with average
    pooling instead of a class token. Linear layers start by Glorot's rule, position embeddings and
    the output layer with standard deviation 0.02.

    Args:
        image: Channels, height and width of the input.
        patch: Height and width of a patch; divides both of the image.
        dim: Width of the residual stream.
        depth: Number of blocks.
        heads: Attention heads; divides `dim`.
        mlp: Hidden units of each block's perceptron.
        outputs: Number of outputs.

    Raises:
        UsageError: A size below 1, or one that does not divide another as it must.
    """

    image: tuple[int, int, int] = (3, 32, 32)
    patch: int = 4
    dim: int = 32
    depth: int = 2
    heads: int = 2
    mlp: int = 64
    outputs: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", sizes(self, "image", self.image, 3))
        for name in ("patch", "dim", "depth", "heads", "mlp", "outputs"):
            size(self, name, getattr(self, name))
        if self.image[1] % self.patch or self.image[2] % self.patch:
            raise UsageError(
                f"patch {self.patch} of ViT does not divide the image's {self.image[1]} × "
                f"{self.image[2]} pixels"
            )
        if self.dim % self.heads:
            raise UsageError(f"heads {self.heads} of ViT do not divide its dim {self.dim}")

    def module(self) -> nn.Module:
        """A `VisionTransformer`."""
        return VisionTransformer(self)

    def start(self, slot: Slot) -> Slot:
        """Glorot's; 0.02 for positions and outputs."""
        if slot.name == "position":
            return replace(slot, role="embedding", fan_in=1, fan_out=self.dim, std=0.02, scale=0.02)
        if slot.role != "weight" or slot.fan_in is None or slot.fan_out is None:
            return slot
        std = 0.02 if slot.name == "head.weight" else (2 / (slot.fan_in + slot.fan_out)) ** 0.5
        return replace(slot, std=std, scale=std)

    def symmetry(self, stream: bool = True) -> Symmetry:
        """Heads as whole blocks, units of the perceptrons, and the residual stream.

        Args:
            stream: Whether the residual stream may be permuted too. One group then reaches every
                layer, exact because layer norm treats all of its entries alike.
        """
        groups: list[PermutationGroup] = []
        rows = ["embed.weight", "embed.bias", "norm.weight", "norm.bias"]
        columns = [Place("position", 1), Place("head.weight", 1)]
        for i in range(self.depth):
            block = f"blocks.{i}"
            head = self.dim // self.heads
            projections = [f"{block}.attention.{name}" for name in ("query", "key", "value")]
            leaves = ("weight", "bias")
            heads = [Place(f"{p}.{leaf}", 0, inner=head) for p in projections for leaf in leaves]
            out = Place(f"{block}.attention.out.weight", 1, inner=head)
            groups.append(group(f"block{i}.heads", self.heads, [], [*heads, out]))
            fc1 = [f"{block}.fc1.weight", f"{block}.fc1.bias"]
            groups.append(group(f"block{i}.mlp", self.mlp, fc1, [Place(f"{block}.fc2.weight", 1)]))
            rows += [f"{block}.{norm}.{leaf}" for norm in ("norm1", "norm2") for leaf in leaves]
            rows += [
                f"{block}.{layer}.{leaf}" for layer in ("attention.out", "fc2") for leaf in leaves
            ]
            columns += [Place(f"{p}.weight", 1) for p in [*projections, f"{block}.fc1"]]
        if stream:
            groups.append(group("stream", self.dim, rows, columns))
        return Symmetry(self.spec(), groups)
