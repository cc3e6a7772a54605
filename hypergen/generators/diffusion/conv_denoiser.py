"""ConvDenoiser: a one-dimensional convolutional network over one long latent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import SpecError
from hypergen.conditions import Condition
from hypergen.generators.diffusion.denoiser import Denoiser, TimeEmbedding
from hypergen.generators.diffusion.mlp_denoiser import pooled_projection


class ConvDenoiser(Denoiser):
    """Convolutions of growing, then shrinking, numbers of channels, at full length.

    The denoiser of p-diff (Wang et al., "Neural Network Diffusion", 2024, arXiv:2402.13144), which
    sees the latents of a network as one signal of a channel. A block on the way down adds what the
    block of its width on the way up returned. Time and the pooled condition scale and shift every
    channel of every block, so they reach each latent.

    Cost of a latent: 2 · kernel · Σ channels · channels multiplications, whatever their number.

    Args:
        tokens: Number T of latent tokens.
        dim: Width D of a latent token.
        positions: `[T, 3]`, not read.
        mask: `[T, D]` bool, False where a latent is padding.
        condition_dim: Width of the condition, 0 for none.
        channels: Channels of the blocks on the way up; those on the way down mirror them.
        kernel: Width of the convolutions, odd.
        time_dim: Width of the embedded time.

    Raises:
        SpecError: A setting is out of range.
    """

    def __init__(
        self,
        tokens: int,
        dim: int,
        positions: Tensor,
        mask: Tensor,
        condition_dim: int,
        channels: Sequence[int] = (64, 128, 256, 512),
        kernel: int = 7,
        time_dim: int = 256,
    ) -> None:
        options = {"channels": list(channels), "kernel": kernel, "time_dim": time_dim}
        super().__init__(tokens, dim, positions, mask, condition_dim, options)
        if not channels or min(*channels, kernel, time_dim) < 1 or kernel % 2 == 0:
            raise SpecError("ConvDenoiser needs positive channels and an odd kernel")
        self.time = TimeEmbedding(time_dim)
        self.pooled = pooled_projection(condition_dim, time_dim)
        widths = [1, *channels]
        self.up = nn.ModuleList(_Block(a, b, kernel, time_dim) for a, b in pairwise(widths))
        down = list(reversed(channels))
        self.down = nn.ModuleList(_Block(a, b, kernel, time_dim) for a, b in pairwise(down))
        self.head = nn.Conv1d(channels[0], 1, kernel, padding=kernel // 2)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def read(self, condition: Condition | None) -> Any:
        """The projected pooled condition, `[B, time_dim]`."""
        return None if condition is None or self.pooled is None else self.pooled(condition.pooled)

    def step(self, x: Tensor, time: Tensor, memory: Any) -> Tensor:
        """Predicts from latents `[B, T, D]`."""
        embedded = self.time(time)
        if memory is not None:
            embedded = embedded + memory
        embedded = F.silu(embedded)
        signal = x.flatten(1)[:, None]
        kept = []
        for block in self.up:
            signal = block(signal, embedded)
            kept.append(signal)
        for block, skip in zip(self.down, reversed(kept[:-1]), strict=True):
            signal = block(signal, embedded) + skip
        out: Tensor = self.head(signal)[:, 0].unflatten(1, (self.tokens, self.dim))
        return out

    def forward(self, x: Tensor, time: Tensor, condition: Condition | None) -> Tensor:
        """Predicts from latents `[B, T, D]`."""
        return self.step(x, time, self.read(condition))


class _Block(nn.Module):
    """Convolution, normalisation of the channels, scale and shift by the embedding, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, embedding: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(_groups(outputs), outputs)
        self.modulate = nn.Linear(embedding, 2 * outputs)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulate(embedding)[..., None].chunk(2, dim=1)
        return F.silu(self.norm(self.conv(x)) * (1 + scale) + shift)


def _groups(channels: int) -> int:
    """The largest number of groups up to 8 that divides the channels."""
    return next(g for g in (8, 4, 2, 1) if channels % g == 0)
