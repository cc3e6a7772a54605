"""Retrieval: the expert whose description is most similar."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.library.base import LibraryGenerator
from hypergen.specs import Weights, WeightSpec


class NearestExpert(LibraryGenerator):
    """The stored expert with the most similar description, by cosine of pooled conditions.

    Retrieval needs no training, and is what a generator of adapters has to beat (LoraRetriever,
    Zhao et al., ACL Findings 2024, arXiv:2402.09997, trains the encoder for it; this does not).
    Among equal cosines the first expert wins. The output is constant between conditions: it has
    no gradient with respect to them.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition; its pooled vector is compared.
        experts: Names of the experts; given by `from_weights` or the data module.
        descriptions: Number of their descriptions; likewise.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        experts: Sequence[str] = (),
        descriptions: int = 0,
    ) -> None:
        super().__init__(spec, encoder, experts, descriptions, {})

    def route(self, condition: Condition, without: Tensor | None = None) -> Tensor:
        """Number of the expert of each row, `[B]`.

        Args:
            condition: `[B]` conditions.
            without: `[B, E]` bool, experts that a row must not use.
        """
        return self.similarity(condition, without).argmax(1)

    def forward(self, condition: Condition, without: Tensor | None = None) -> Weights:
        """Picks one expert for each row of the condition; see `route`."""
        return self.spec.from_flat(self.library.weights[self.route(condition, without)])
