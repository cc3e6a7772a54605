"""Softmax-weighted mixing of the most similar experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.library.base import LibraryGenerator, check_mixing
from hypergen.generators.library.experts import top_softmax
from hypergen.specs import Weights, WeightSpec
from hypergen.specs.merging import mix_updates


class WeightedExperts(LibraryGenerator):
    """The mean of the most similar experts, weighted by the softmax of their cosines.

    Needs no training. Low temperatures approach `NearestExpert`, high ones with all experts the
    mean adapter. The mixing step of SG-LoRA (arXiv:2509.10535) and LoraRetriever
    (arXiv:2402.09997), applied to the weights themselves.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition; its pooled vector is compared.
        experts: Names of the experts; given by `from_weights` or the data module.
        descriptions: Number of their descriptions; likewise.
        top_k: Experts that are mixed; all when None.
        temperature: Divides the cosines.
        mix: `"tensors"` mixes entry by entry. `"updates"`, for LoRA, mixes the updates ΔW and
            cuts the sum back to the spec's rank (see `hypergen.specs.merging.mix_updates`); it
            has no gradient.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        experts: Sequence[str] = (),
        descriptions: int = 0,
        top_k: int | None = 4,
        temperature: float = 0.05,
        mix: Literal["tensors", "updates"] = "tensors",
    ) -> None:
        config = {"top_k": top_k, "temperature": temperature, "mix": mix}
        super().__init__(spec, encoder, experts, descriptions, config)
        check_mixing(top_k, temperature, mix, spec)
        self.top_k, self.temperature, self.mix = top_k, temperature, mix

    def route(self, condition: Condition, without: Tensor | None = None) -> Tensor:
        """Coefficients of the experts, `[B, E]`; they sum to 1, all but `top_k` are 0.

        Args:
            condition: `[B]` conditions.
            without: `[B, E]` bool, experts that a row must not use.
        """
        return top_softmax(self.similarity(condition, without), self.top_k, self.temperature)

    def forward(self, condition: Condition, without: Tensor | None = None) -> Weights:
        """Mixes the experts for each row of the condition; see `route`."""
        coefficients = self.route(condition, without)
        experts = self.library.stored()
        if self.mix == "tensors":
            return experts.mix(coefficients)
        count = len(self.library) if self.top_k is None else min(self.top_k, len(self.library))
        share, index = coefficients.topk(count, dim=-1)
        return mix_updates(experts, share, index)
