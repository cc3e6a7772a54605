"""Slot queries that carry the frozen weights which their slot adapts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.conditions import BaseWeightsEncoder, ConditionEncoder, base_weights
from hypergen.generators.hyper.transformer import TransformerGenerator
from hypergen.specs import WeightSpec


class PromptToEffect(TransformerGenerator):
    """`TransformerGenerator` whose queries also hold a sketch of their module's frozen weight.

    After "Prompt2Effect", 2026, arXiv:2606.13971: the update of a layer is read off the prompt by
    tokens of that layer's own weight. There rows and columns of W are tokenised by learned layers,
    and the training target is the singular value decomposition of known updates. Ours keeps the
    idea alone: fixed sketches (`BaseWeightsEncoder`) are projected and added to the learned
    queries, the heads are those of `TransformerGenerator`, and any objective trains it.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition, and holds the frozen network's tokens:
            `WithBaseWeights`, or a `FusedEncoder` with a `BaseWeightsEncoder` among its parts.
        **options: Arguments of `TransformerGenerator`.

    Raises:
        SpecError: The encoder holds no base weights, or lacks those of a slot's module.
    """

    def __init__(self, spec: WeightSpec, encoder: ConditionEncoder, **options: Any) -> None:
        super().__init__(spec, encoder, **options)
        base = base_weights(encoder)
        if base is None:
            raise SpecError(
                "PromptToEffect reads the frozen weights: wrap the encoder in WithBaseWeights(…, "
                "BaseWeightsEncoder.from_model(model, modules))"
            )
        rows = torch.tensor([_row(base, slot.name, slot.module) for slot in spec])
        self.register_buffer("base_index", rows[self.query_index[:, 0]], persistent=False)
        self.base_index: Tensor
        dim: int = self.config["dim"]
        self.base_input = nn.Sequential(
            nn.LayerNorm(base.dim, elementwise_affine=False), nn.Linear(base.dim, dim)
        )

    def queries(self) -> Tensor:
        """`[queries, dim]`: the learned queries plus their module's weights."""
        base = base_weights(self.encoder)
        assert base is not None
        tokens: Tensor = self.base_input(base.tokens)
        return super().queries() + tokens[self.base_index]


def _row(base: BaseWeightsEncoder, slot: str, module: str) -> int:
    """Number of the token of the innermost module that was read around a slot's module."""
    around = [path for path in base.modules_read if f"{module}.".startswith(f"{path}.")]
    if not around:
        raise SpecError(
            f"slot {slot!r} belongs to module {module!r}, whose weights the encoder has not read: "
            "name it in BaseWeightsEncoder.from_model"
        )
    return base.modules_read.index(max(around, key=len))
