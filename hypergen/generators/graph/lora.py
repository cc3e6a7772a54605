"""LoRA for chosen modules of any architecture."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError
from hypergen.conditions.graph import ModuleGraph
from hypergen.generators.graph.codes import PositionCodes
from hypergen.specs import LoRASpec


class LoRADecoder(nn.Module):
    """Vectors of nodes → A `[r, in]` and B `[out, r]` of each module.

    Rows of A and columns of B are combinations of codes of inputs and outputs, which are known for
    any width (see `LowRankDecoder`), so that one decoder serves models of all sizes. The adapter
    starts without an effect: one of the two is multiplied by an amount that starts at zero.

    Args:
        dim: Width D of the nodes' vectors.
        rank: Largest rank r.
        codes: Width R of the codes.
        features: Width H of the features.
        table: How many inputs and outputs have a learnt vector of their own.
    """

    def __init__(
        self, dim: int, rank: int = 8, codes: int = 32, features: int = 256, table: int = 128
    ) -> None:
        super().__init__()
        self.rank, self.width = rank, codes
        self.inner = nn.Linear(dim, features)
        self.outer = nn.Linear(features, features)
        self.factors = nn.Linear(features, 2 * rank * codes, bias=False)
        self.amount = nn.Linear(dim, 1)
        self.inputs = PositionCodes(codes, "columns", table=table)
        self.outputs = PositionCodes(codes, "rows", table=table)
        for layer in (self.inner, self.outer):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.factors.weight, std=1 / math.sqrt(features))
        nn.init.zeros_(self.amount.weight)
        nn.init.zeros_(self.amount.bias)

    def forward(self, x: Tensor, spec: LoRASpec) -> Tensor:
        """The flat buffer `[numel]` of one adapter.

        Args:
            x: `[M, D]`, vectors of the spec's modules, in its order.
            spec: The adapter.

        Raises:
            ConditionError: A module has a larger rank than this decoder makes.
        """
        place = {module: i for i, module in enumerate(spec.modules)}
        most = max(spec.rank(module) for module in place)
        if most > self.rank:
            raise ConditionError(f"the spec has rank {most}, this decoder makes up to {self.rank}")
        hidden = torch.relu(self.outer(torch.relu(self.inner(x))))
        factors = self.factors(hidden).unflatten(-1, (2, self.rank, self.width))
        factors = factors / math.sqrt(self.width)
        amount = self.amount(x)[:, :, None]
        parts = []
        for group in spec.groups:
            slots = spec.slots[group.start : group.stop]
            rows = torch.tensor([place[slot.module] for slot in slots], device=x.device)
            scale = torch.tensor([slot.scale for slot in slots], device=x.device)[:, None, None]
            if group.role == "lora_A":
                codes = self.inputs.first(group.shape[1])
                made = factors[rows, 0, : group.shape[0]] @ codes.T
            else:
                codes = self.outputs.first(group.shape[0])
                made = codes @ factors[rows, 1, : group.shape[1]].mT
            made = made * scale
            # What the spec starts at zero: B, and of embeddings A.
            parts.append((made * amount[rows] if slots[0].std == 0 else made).flatten())
        return torch.cat(parts)


def module_nodes(graph: ModuleGraph, spec: LoRASpec) -> list[int]:
    """Number of the node of each adapted module's weight.

    Raises:
        ConditionError: A module has no weight in the graph; names it.
    """
    names = {name: i for i, n in graph.of_kind("parameter") for name in (n.name, *n.ties)}
    found = []
    for module in spec.modules:
        options = (f"{module}.weight", f"{module}.base_layer.weight")
        at = next((names[option] for option in options if option in names), None)
        if at is None:
            raise ConditionError(
                f"module {module!r} of the spec has no weight in the graph of {graph.name}: trace "
                "the model that the spec was made for"
            )
        found.append(at)
    return found
