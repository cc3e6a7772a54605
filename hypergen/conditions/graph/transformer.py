"""Graph transformer: attention among all nodes, biased by how far apart they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import ConditionError
from hypergen.conditions.graph.batch import GraphBatch, pair_count
from hypergen.conditions.graph.distances import CAP
from hypergen.conditions.graph.features import NodeFeatures


class DistanceBias(nn.Module):
    """What attention adds for two nodes: a function of their forward and backward distance.

    GHN-3 runs a small network on every one of the N² pairs. It sees nothing but the two distances,
    which take few values: here it runs once on each value, and the pairs look the result up. The
    numbers are equal.

    Args:
        heads: Number of heads.
        dim: Width of the distances' embeddings.
        cap: Longest distance that is told from longer ones.
    """

    ahead: Tensor
    behind: Tensor

    def __init__(self, heads: int, dim: int, cap: int = CAP) -> None:
        super().__init__()
        self.heads, self.cap = heads, cap
        self.forward_embedding = nn.Embedding(cap + 2, dim)
        self.backward_embedding = nn.Embedding(cap + 2, dim)
        self.network = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, heads))
        nothing, steps = torch.full((cap + 1,), cap + 1), torch.arange(cap + 1)
        last = torch.tensor([cap + 1])
        # The order of `distance_pairs`: d ahead, then d behind, then no path.
        ahead = torch.cat([steps, nothing, last])
        behind = torch.cat([nothing, steps, last])
        behind[0] = 0  # a node and itself
        self.register_buffer("ahead", ahead, persistent=False)
        self.register_buffer("behind", behind, persistent=False)

    def of_distances(self, ahead: Tensor, behind: Tensor) -> Tensor:
        """The network on distances `[…]` and `[…]` → `[…, heads]`."""
        both = [self.forward_embedding(ahead), self.backward_embedding(behind)]
        out: Tensor = self.network(torch.cat(both, -1))
        return out

    def forward(self, pairs: Tensor) -> Tensor:
        """Pairs `[B, N, N]` of `distance_pairs` → `[B, heads, N, N]`; -inf for padding."""
        table = self.of_distances(self.ahead, self.behind)
        masked = table.new_full((1, self.heads), float("-inf"))
        table = torch.cat([table, masked])  # [pairs, heads]
        size = pairs.shape
        found = table.T.index_select(1, pairs.flatten().to(torch.int32))
        return found.view(self.heads, *size).transpose(0, 1)


class _Layer(nn.Module):
    """Attention, then a feed-forward network, each after a layer norm and around which is added."""

    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(
            nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim)
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        out: Tensor = x + self.feed(self.norm2(x))
        return out


class GraphTransformer(nn.Module):
    """Encodes nodes by attention with a bias of distances.

    Knyazev, Hwang and Lacoste-Julien, "Can We Scale Transformers to Predict Parameters of Diverse
    ImageNet Models?" (GHN-3), ICML 2023, arXiv:2303.04143, on Graphormer (Ying et al.,
    arXiv:2106.05234). Degrees and depths are features of the nodes. Padding is masked: a graph's
    result does not depend on what it is batched with.

    Args:
        dim: Width D.
        layers: Number of layers.
        heads: Number of heads; divides D.
        ratio: Width of the feed-forward network, in D.
        cap: Longest distance that is told from longer ones.
        depth: See `NodeFeatures`.

    Raises:
        ConditionError: D cannot be divided by `heads`.
    """

    def __init__(
        self,
        dim: int = 64,
        layers: int = 3,
        heads: int = 8,
        ratio: int = 4,
        cap: int = CAP,
        depth: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ConditionError(f"dim={dim} cannot be divided by heads={heads}")
        self.dim, self.cap = dim, cap
        self.features = NodeFeatures(dim, depth)
        self.bias = DistanceBias(heads, dim, cap)
        self.layers = nn.ModuleList(_Layer(dim, heads, ratio) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        assert pair_count(cap) == len(self.bias.ahead) + 1

    def forward(self, batch: GraphBatch) -> Tensor:
        """B graphs of N nodes → `[B, N, D]`, 0 for padding."""
        x = self.features(batch)
        bias = self.bias(batch.pairs)
        for layer in self.layers:
            x = layer(x, bias)
        out: Tensor = self.norm(x)
        return out.masked_fill(~batch.mask[..., None], 0)
