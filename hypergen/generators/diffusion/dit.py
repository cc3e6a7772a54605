"""DiT: a transformer over latent tokens, modulated by time and condition."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import SpecError
from hypergen.conditions import Condition
from hypergen.generators.diffusion.denoiser import Denoiser, TimeEmbedding, sinusoid
from hypergen.generators.diffusion.mlp_denoiser import pooled_projection, zero_linear


class Memory(NamedTuple):
    """What `DiT.read` takes of a condition, once a sampling.

    Attributes:
        pooled: `[B, dim]`, added to the embedded time.
        keys: For each block that attends to the condition, `[B, heads, C + 1, dim / heads]`.
        values: Likewise.
        mask: `[B, 1, 1, C + 1]` bool, which tokens there are.
    """

    pooled: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor


class DiT(Denoiser):
    """A bidirectional transformer whose projections all tokens share.

    Peebles and Xie, "Scalable Diffusion Models with Transformers", ICCV 2023, arXiv:2212.09748
    (adaLN-Zero); over tokens of weights as in G.pt (Peebles et al., 2022, arXiv:2209.12892), which
    however has a projection for each position. Here a position is sines and cosines of layer, slot
    and number of the token, projected: the number of parameters does not depend on the number of
    tokens, and one model reads networks of several architectures (`positions`, `present`).

    Time and the pooled condition modulate every block and the output; all tokens of the condition
    are read by cross-attention, whose keys and values are computed once a sampling (`read`). The
    head and the gates of self-attention and MLP start at zero.

    Cost of a step, for B networks of T tokens and w = `width`: about 2 · B · T · depth · (4 + 2 ·
    ratio + 2 · cross) · w² + 4 · B · T² · depth · w operations, and 12 · B · depth · w² for the
    modulation; a condition of C tokens adds 4 · B · C · depth · w² once.

    Args:
        tokens: Number T of latent tokens.
        dim: Width D of a latent token.
        positions: `[T, 3]` long: layer, slot, number within the slot.
        mask: `[T, D]` bool, False where a latent is padding.
        condition_dim: Width of the condition, 0 for none.
        width: Width of the transformer.
        depth: Number of blocks.
        heads: Attention heads.
        ratio: Width of the hidden layer of a block's MLP, in units of `width`.
        cross: Whether blocks attend to the condition's tokens; else only the pooled vector counts.
        dropout: Dropout in attention and behind the MLPs.

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
        width: int = 256,
        depth: int = 6,
        heads: int = 4,
        ratio: float = 4.0,
        cross: bool = True,
        dropout: float = 0.0,
    ) -> None:
        options = {
            "width": width,
            "depth": depth,
            "heads": heads,
            "ratio": ratio,
            "cross": cross,
            "dropout": dropout,
        }
        super().__init__(tokens, dim, positions, mask, condition_dim, options)
        if min(width, depth, heads) < 1 or ratio <= 0 or width % heads:
            raise SpecError(f"DiT needs depth ≥ 1 and a width that heads divide: {width}, {heads}")
        self.width, self.depth, self.heads = width, depth, heads
        self.input = nn.Linear(dim, width)
        self.place = PositionEmbedding(width)
        self.time = TimeEmbedding(width)
        self.pooled = pooled_projection(condition_dim, width)
        reads = cross and condition_dim > 0
        self.context = pooled_projection(condition_dim, width) if reads else None
        # Keys and values of all blocks at once.
        self.key_value = nn.Linear(width, 2 * depth * width) if reads else None
        self.blocks = nn.ModuleList(
            _Block(width, heads, int(ratio * width), dropout, reads) for _ in range(depth)
        )
        self.modulate = zero_linear(width, 6 * depth * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        # Not zero, since the head is: what depends on time and condition alone is there at once.
        self.last = nn.Linear(width, 2 * width)
        self.head = zero_linear(width, dim)

    def read(self, condition: Condition | None) -> Memory | None:
        """Projections, keys and values of the condition."""
        if condition is None or self.pooled is None:
            return None
        pooled = self.pooled(condition.pooled)
        ones = torch.ones_like(condition.mask[:, :1])
        mask = torch.cat([ones, condition.mask], dim=1)[:, None, None]
        if self.context is None or self.key_value is None:
            return Memory(pooled, (), (), mask)
        # The pooled vector is one more token, so that there is something to attend to always.
        tokens = torch.cat([condition.pooled[:, None], condition.tokens], dim=1)
        both = self.key_value(F.silu(self.context(tokens)))
        both = both.unflatten(-1, (2, self.depth, self.heads, -1)).permute(2, 3, 0, 4, 1, 5)
        return Memory(pooled, tuple(both[0].unbind(0)), tuple(both[1].unbind(0)), mask)

    def step(
        self,
        x: Tensor,
        time: Tensor,
        memory: Any,
        positions: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Predicts from latents.

        Args:
            x: `[B, T, D]`.
            time: `[B]`.
            memory: What `read` returned.
            positions: `[T, 3]` or `[B, T, 3]`, of another architecture than the codec's.
            present: `[B, T]` bool, False for tokens that only fill a batch of several
                architectures up; others do not see them.

        Returns:
            `[B, T, D]`.
        """
        places = self.place(self.positions if positions is None else positions)
        hidden = self.input(x) + places
        embedded = self.time(time)
        if memory is not None:
            embedded = embedded + memory.pooled
        embedded = F.silu(embedded)
        changes = self.modulate(embedded).unflatten(-1, (self.depth, 6, 1, self.width))
        seen = None if present is None else present[:, None, None]
        for i, block in enumerate(self.blocks):
            context = None
            if memory is not None and memory.keys:
                context = (memory.keys[i], memory.values[i], memory.mask)
            hidden = block(hidden, changes[:, i].unbind(1), context, seen)
        scale, shift = self.last(embedded)[:, None].chunk(2, dim=-1)
        out: Tensor = self.head(self.norm(hidden) * (1 + scale) + shift)
        return out

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        condition: Condition | None,
        positions: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Predicts from latents `[B, T, D]`; see `step`."""
        return self.step(x, time, self.read(condition), positions, present)


class PositionEmbedding(nn.Module):
    """Layer, slot and number of a token → `[..., width]`: sines and cosines, projected.

    Args:
        width: Width.
        frequencies: Number of sines, and of cosines, for each of the three.
    """

    def __init__(self, width: int, frequencies: int = 32) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.project = nn.Linear(6 * frequencies, width)

    def forward(self, positions: Tensor) -> Tensor:
        """`[..., 3]` long → `[..., width]`."""
        angles = sinusoid(positions, self.frequencies).flatten(-2)
        out: Tensor = self.project(angles.to(self.project.weight.dtype))
        return out


class _Block(nn.Module):
    """Self-attention and MLP, both modulated and gated; cross-attention between the two."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, cross: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.cross_norm = nn.LayerNorm(width) if cross else None
        self.cross_query = nn.Linear(width, width) if cross else None
        # Not zero, as a gate would be: the condition is there from the first step on.
        self.cross_out = nn.Linear(width, width) if cross else None
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(approximate="tanh"),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )

    def forward(
        self,
        x: Tensor,
        changes: tuple[Tensor, ...],
        context: tuple[Tensor, Tensor, Tensor] | None,
        seen: Tensor | None,
    ) -> Tensor:
        scale, shift, gate, scale2, shift2, gate2 = changes
        own = self.query_key_value(self.norm(x) * (1 + scale) + shift)
        q, k, v = own.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + gate * self.out(self._attend(q, k, v, seen))
        if context is not None and self.cross_query is not None:
            assert self.cross_norm is not None
            assert self.cross_out is not None
            q = self.cross_query(self.cross_norm(x)).unflatten(-1, (self.heads, -1))
            x = x + self.cross_out(self._attend(q.transpose(1, 2), *context))
        return x + gate2 * self.mlp(self.norm(x) * (1 + scale2) + shift2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        drop = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)
        return out.transpose(1, 2).flatten(-2)
