"""Learned slot queries that read the condition's tokens by cross-attention."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import SpecError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.base import Generator
from hypergen.generators.hyper.heads import RowHeads
from hypergen.generators.hyper.inits import HeadInit
from hypergen.generators.hyper.mlp import ResidualBlock
from hypergen.specs import Weights, WeightSpec


class Attention(nn.Module):
    """Multi-head attention of `queries` over `context` (over themselves without one)."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise SpecError(f"dim {dim} is not a multiple of the number of heads {heads}")
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """`x` `[B, Q, dim]`, `context` `[B, T, dim]`, `mask` `[B, T]` → `[B, Q, dim]`."""
        context = x if context is None else context
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.key_value(context).chunk(2, dim=-1)
        )
        attend = None if mask is None else mask[:, None, None, :]
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=attend, dropout_p=self.dropout if self.training else 0.0
        )
        result: Tensor = self.out(out.transpose(1, 2).flatten(-2))
        return result


class QueryBlock(nn.Module):
    """Cross-attention, self-attention (optional) and an MLP, each residual and pre-normed."""

    def __init__(self, dim: int, heads: int, dropout: float, self_attention: bool) -> None:
        super().__init__()
        self.cross_norm = nn.LayerNorm(dim)
        self.cross = Attention(dim, heads, dropout)
        self.self_norm = nn.LayerNorm(dim) if self_attention else None
        self.self_attention = Attention(dim, heads, dropout) if self_attention else None
        self.mlp = ResidualBlock(dim, dropout)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """`x` `[B, Q, dim]`, `context` `[B, T, dim]`, `mask` `[B, T]` → `[B, Q, dim]`."""
        x = x + self.cross(self.cross_norm(x), context, mask)
        if self.self_attention is not None and self.self_norm is not None:
            x = x + self.self_attention(self.self_norm(x))
        out: Tensor = self.mlp(x)
        return out


class ConditionBlock(nn.Module):
    """Masked self-attention among the condition's tokens, and an MLP."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dropout)
        self.mlp = ResidualBlock(dim, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` `[B, T, dim]`, `mask` `[B, T]` → `[B, T, dim]`."""
        normed = self.norm(x)
        x = x + self.attention(normed, normed, mask)
        out: Tensor = self.mlp(x)
        return out


class TransformerGenerator(Generator):
    """One learned query for each row of each slot, cross-attending to the condition's tokens.

    Rows of A and columns of B of a LoRA, rows of a weight matrix, and so on, are emitted by heads
    that slots of one group share, so that the number of parameters does not grow with depth.
    Phang et al., "HyperTuning", ICML 2023, arXiv:2211.12485, uses such decoder tokens for prefixes
    and LoRA; here for any spec.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition.
        dim: Width of the queries.
        depth: Number of query blocks.
        heads: Attention heads.
        condition_depth: Blocks of self-attention over the condition's tokens before they are read.
        most_rows: Most queries a slot is cut into.
        share: Which slots share a head: those of a `"group"`, or none (`"slot"`, `"row"`).
        self_attention: Whether queries attend to each other.
        dropout: Dropout in attention and MLPs.
        token_noise: Standard deviation of noise on the condition's tokens in training, as a
            fraction of their own.
        init: Start of the generated weights, see `hypergen.generators.hyper.inits`.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        dim: int = 128,
        depth: int = 2,
        heads: int = 4,
        condition_depth: int = 1,
        most_rows: int = 16,
        share: Literal["group", "slot", "row"] = "slot",
        self_attention: bool = True,
        dropout: float = 0.0,
        token_noise: float = 0.0,
        init: HeadInit = "theta0",
    ) -> None:
        config = {
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "condition_depth": condition_depth,
            "most_rows": most_rows,
            "share": share,
            "self_attention": self_attention,
            "dropout": dropout,
            "token_noise": token_noise,
            "init": init,
        }
        super().__init__(spec, encoder, config)
        self.token_noise = token_noise
        self.input = nn.Sequential(nn.LayerNorm(encoder.dim), nn.Linear(encoder.dim, dim))
        self.condition_blocks = nn.ModuleList(
            ConditionBlock(dim, heads, dropout) for _ in range(condition_depth)
        )
        self.context_norm = nn.LayerNorm(dim)
        self.heads = RowHeads(spec, dim, most_rows, share, init)
        index = self.heads.query_index()
        self.slot_embedding = nn.Embedding(len(spec), dim)
        self.row_embedding = nn.Embedding(int(index[:, 1].max()) + 1, dim)
        self.register_buffer("query_index", index, persistent=False)
        self.query_index: Tensor
        self.blocks = nn.ModuleList(
            QueryBlock(dim, heads, dropout, self_attention) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)

    def queries(self) -> Tensor:
        """What the blocks start from, the same for every condition: `[queries, dim]`."""
        slots: Tensor = self.slot_embedding(self.query_index[:, 0])
        rows: Tensor = self.row_embedding(self.query_index[:, 1])
        return slots + rows

    def features(self, condition: Condition) -> Tensor:
        """What the heads read: `[B, queries, dim]`, mean square 1."""
        tokens, mask = condition.tokens, condition.mask
        if self.training and self.token_noise:
            tokens = tokens + self.token_noise * tokens.std() * torch.randn_like(tokens)
        # The pooled vector is one more token: it is all there is when T = 1.
        context = self.input(torch.cat([condition.pooled[:, None], tokens], dim=1))
        mask = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        for block in self.condition_blocks:
            context = block(context, mask)
        context = self.context_norm(context)
        x = self.queries().expand(len(condition), -1, -1)
        for block in self.blocks:
            x = block(x, context, mask)
        out: Tensor = self.norm(x)
        return out

    def forward(self, condition: Condition) -> Weights:
        """Generates one set of weights for each row of the condition."""
        weights: Weights = self.heads(self.features(condition))
        return weights
