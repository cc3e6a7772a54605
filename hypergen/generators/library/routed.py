"""Learned routing: coefficients of the experts for each module, from the condition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import SpecError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.hyper.mlp import ResidualBlock
from hypergen.generators.library.base import LibraryGenerator, check_mixing
from hypergen.specs import Weights, WeightSpec
from hypergen.specs.merging import mix_slots


class RoutedExperts(LibraryGenerator):
    """Experts mixed with learned coefficients, other ones for each module.

    `coefficients="softmax"` shares 1 among the experts, as the skills of Poly (Ponti et al.,
    arXiv:2202.13914) and MHR (Caccia et al., arXiv:2211.03831); `"free"` lets coefficients be
    negative or sum to anything, block by block, as aTLAS (Zhang et al., NeurIPS 2024,
    arXiv:2407.02880). What differs: those papers learn a table of coefficients for known tasks
    (and Poly and MHR the skills themselves); here coefficients come from the condition, so that
    new tasks have some, and the experts stay as they are. MHR's heads that split a matrix are not
    here: a block is a module or a slot.

    The coefficient of expert e in block m is a softmax (or, for `"free"`, a softmax plus a product)
    of cosine(c, c_e) / temperature and of the product of a query made of (condition, block) with a
    key made of the expert's descriptions. No parameter belongs to one expert: they may be replaced
    after training. The keys start at zero, so the start is `WeightedExperts` with all experts.

    While training, the experts of a row's own task are left out. Trained by any objective.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition; its pooled vector is used.
        experts: Names of the experts; given by `from_weights` or the data module.
        descriptions: Number of their descriptions; likewise.
        hidden: Width of queries and keys.
        blocks: What has coefficients of its own: each `"module"`, or each `"slot"` (A and B of a
            LoRA apart, as in aTLAS).
        coefficients: `"softmax"` or `"free"`.
        temperature: Divides the cosines; learned from there.
        dropout: Dropout inside the query network.

    Raises:
        SpecError: A setting is out of range.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        experts: Sequence[str] = (),
        descriptions: int = 0,
        hidden: int = 128,
        blocks: Literal["module", "slot"] = "module",
        coefficients: Literal["softmax", "free"] = "softmax",
        temperature: float = 0.05,
        dropout: float = 0.0,
    ) -> None:
        config = {
            "hidden": hidden,
            "blocks": blocks,
            "coefficients": coefficients,
            "temperature": temperature,
            "dropout": dropout,
        }
        super().__init__(spec, encoder, experts, descriptions, config)
        check_mixing(None, temperature)
        if blocks not in ("module", "slot"):
            raise SpecError(f"blocks {blocks!r} is neither module nor slot")
        if coefficients not in ("softmax", "free"):
            raise SpecError(f"coefficients {coefficients!r} is neither softmax nor free")
        self.coefficients = coefficients
        index = block_index(spec) if blocks == "module" else torch.arange(len(spec))
        self.register_buffer("block_of", index, persistent=False)
        self.block_of: Tensor
        count = int(index.max()) + 1
        self.query = nn.Sequential(
            nn.Linear(encoder.dim, hidden),
            ResidualBlock(hidden, dropout),
            nn.LayerNorm(hidden, elementwise_affine=False),
        )
        self.block_gate = nn.Embedding(count, hidden)
        self.block_shift = nn.Embedding(count, hidden)
        self.key = nn.Linear(encoder.dim, hidden, bias=False)
        nn.init.zeros_(self.key.weight)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def route(self, condition: Condition, without: Tensor | None = None) -> Tensor:
        """Coefficients of the experts in each block, `[B, blocks, E]`.

        Args:
            condition: `[B]` conditions.
            without: `[B, E]` bool, experts that a row must not use.
        """
        cosine = self.similarity(condition) * (-self.log_temperature).exp()
        if without is not None:  # after the product: 0 · inf in its gradient would be NaN
            cosine = cosine.masked_fill(without, -torch.inf)
        cosine = cosine[:, None]
        # Sentence embeddings share a large mean, which says nothing about any of them.
        centres, shape = self.library.centres(), (condition.dim,)
        mean = centres.mean(0)
        features = self.query(F.layer_norm(condition.pooled - mean, shape))[:, None]
        queries = features * (1 + self.block_gate.weight) + self.block_shift.weight
        keys = self.key(F.layer_norm(centres - mean, shape))
        product = queries @ keys.T / math.sqrt(keys.shape[-1])
        if self.coefficients == "softmax":
            return (cosine + product).softmax(-1)
        product = product / math.sqrt(len(keys))  # sums over experts keep their size
        if without is not None:
            product = product.masked_fill(without[:, None], 0)
        return cosine.softmax(-1) + product

    def forward(self, condition: Condition, without: Tensor | None = None) -> Weights:
        """Mixes the experts for each row of the condition; see `route`."""
        coefficients = self.route(condition, without)[:, self.block_of]
        return mix_slots(self.library.stored(), coefficients)


def block_index(spec: WeightSpec) -> Tensor:
    """Number of the module of each slot, `[len(spec)]`, in the order of the slots."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(slot.module, len(numbers)) for slot in spec])
