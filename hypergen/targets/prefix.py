"""Generated prefixes in front of a frozen transformers model's keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import WeightsError
from hypergen.specs import PrefixSpec, Weights, cache_argument
from hypergen.targets.base import Target


class PrefixTarget(Target):
    """Gives every sample its network's prefix as past keys and values.

    The attention mask (made if absent) is lengthened by the prefix; positions count from the end
    of the prefix on, as in PEFT.

    Args:
        model: A frozen transformers causal language model.
        spec: A `PrefixSpec` made for it.

    Raises:
        WeightsError: The spec was made for another base.
    """

    def __init__(self, model: nn.Module, spec: PrefixSpec) -> None:
        super().__init__(model, spec)
        self._prefix = spec

    def call(self, weights: Weights, *args: Any, **kwargs: Any) -> Any:
        """Runs the model once for all samples; takes `input_ids` (or `inputs_embeds`)."""
        from transformers import DynamicCache

        if args:
            kwargs["input_ids"], *rest = args
            if rest:
                raise WeightsError("PrefixTarget takes input_ids alone or keyword arguments")
        inputs = kwargs.get("input_ids", kwargs.get("inputs_embeds"))
        if not isinstance(inputs, Tensor):
            raise WeightsError("PrefixTarget needs input_ids or inputs_embeds")
        name = cache_argument(self.model)
        for given in ("cache", "past_key_values"):
            if kwargs.get(given) is not None:
                raise WeightsError(f"PrefixTarget sets {given} itself: do not pass any")
        samples = inputs.shape[0]
        repeats = samples // len(weights)
        dtype = next(self.model.parameters()).dtype
        cache = DynamicCache()
        for layer, pair in enumerate(self._prefix.key_values(weights)):
            key, value = (t.to(dtype).repeat_interleave(repeats, dim=0) for t in pair)
            cache.update(key, value, layer)
        length = self._prefix.config["num_virtual_tokens"]
        mask = kwargs.pop("attention_mask", None)
        if mask is None:
            mask = inputs.new_ones(inputs.shape[:2], dtype=torch.long)
        mask = torch.cat([mask.new_ones(samples, length), mask], dim=1)
        return self.model(**kwargs, attention_mask=mask, **{name: cache})
