"""A few learned latents that read the condition's tokens once."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.base import Generator
from hypergen.generators.hyper.heads import FlatHead
from hypergen.generators.hyper.inits import HeadInit
from hypergen.generators.hyper.mlp import GatedBlock, ResidualBlock
from hypergen.specs import Weights, WeightSpec


class LatentReader(nn.Module):
    """Cross-attention of fixed latents over tokens, without projecting any token.

    The latents' queries do not depend on the input, so that the key projection folds into them
    and the value projection moves behind the weighted mean: per token it costs 4 · inputs · heads
    · latents operations, instead of 4 · inputs · dim for keys and values alone.

    Args:
        inputs: Width of the tokens.
        dim: Width of a latent.
        latents: Number of latents.
        heads: Attention heads of each latent.
    """

    def __init__(self, inputs: int, dim: int, latents: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise SpecError(f"dim {dim} is not a multiple of the number of heads {heads}")
        self.latents, self.heads = latents, heads
        self.norm = nn.LayerNorm(inputs)
        self.query = nn.Parameter(torch.randn(inputs, latents * heads) / math.sqrt(inputs))
        self.value = nn.Parameter(
            torch.randn(latents, heads, inputs, dim // heads) / math.sqrt(inputs)
        )
        self.start = nn.Parameter(torch.zeros(latents, dim))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """`[B, T, inputs]` with mask `[B, T]` → `[B, latents, dim]`."""
        tokens = self.norm(tokens)
        scores = (tokens @ self.query).masked_fill(~mask[..., None], -math.inf)
        read = scores.softmax(1).mT @ tokens  # [B, latents · heads, inputs]
        read = read.unflatten(1, (self.latents, self.heads))
        values = torch.einsum("blhi,lhid->blhd", read, self.value).flatten(2)
        return values + self.start


class PerceiverGenerator(Generator):
    """Latents read the tokens; an MLP over all latents emits all slots at once.

    Jaegle et al., "Perceiver IO", ICLR 2022, arXiv:2107.14795, for the latents; the trunk behind
    them is that of `MLPGenerator`. Cheaper than `TransformerGenerator` by an order of magnitude
    when the target is small, and, unlike an MLP on the pooled vector, it sees which word stands
    where.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition.
        latents: Number of latents.
        dim: Width of a latent.
        heads: Attention heads of each latent.
        hidden: Width of the trunk.
        depth: Residual blocks of the trunk.
        dropout: Dropout inside the blocks.
        token_dropout: Chance of hiding each token from the reader in training.
        gated: Gated blocks in the trunk instead of plain ones.
        init: Start of the generated weights, see `hypergen.generators.hyper.inits`.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        latents: int = 8,
        dim: int = 64,
        heads: int = 4,
        hidden: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        token_dropout: float = 0.0,
        gated: bool = False,
        init: HeadInit = "theta0",
    ) -> None:
        config = {
            "latents": latents,
            "dim": dim,
            "heads": heads,
            "hidden": hidden,
            "depth": depth,
            "dropout": dropout,
            "token_dropout": token_dropout,
            "gated": gated,
            "init": init,
        }
        super().__init__(spec, encoder, config)
        self.token_dropout = token_dropout
        self.reader = LatentReader(encoder.dim, dim, latents, heads)
        block = GatedBlock if gated else ResidualBlock
        self.trunk = nn.Sequential(
            nn.Linear(latents * dim, hidden),
            *(block(hidden, dropout) for _ in range(depth)),
            nn.LayerNorm(hidden, elementwise_affine=False),
        )
        self.head = FlatHead(spec, hidden, init)

    def forward(self, condition: Condition) -> Weights:
        """Generates one set of weights for each row of the condition."""
        tokens, mask = condition.tokens, condition.mask
        if self.training and self.token_dropout:
            mask = mask & (torch.rand(mask.shape, device=mask.device) >= self.token_dropout)
        # The pooled vector is one more token, which is never hidden.
        tokens = torch.cat([condition.pooled[:, None], tokens], dim=1)
        mask = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        weights: Weights = self.head(self.trunk(self.reader(tokens, mask).flatten(1)))
        return weights
