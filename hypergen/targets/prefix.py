"""Generated prefixes in front of a frozen transformers model's keys and values."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import WeightsError
from hypergen.specs import PrefixSpec, Weights, cache_argument
from hypergen.targets.base import Target


class PrefixTarget(Target):
    """Gives every sample its network's prefix as past keys and values.

    The attention mask (made if absent, of samples or 4-D) is lengthened by the prefix; positions,
    given or not, count from the end of the prefix on, as in PEFT. A cache that an earlier call
    returned holds the prefix already: handed in again, the call goes on from there.

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
        if args:
            kwargs["input_ids"], *rest = args
            if rest:
                raise WeightsError("PrefixTarget takes input_ids alone or keyword arguments")
        inputs = kwargs.get("input_ids", kwargs.get("inputs_embeds"))
        if not isinstance(inputs, Tensor):
            raise WeightsError("PrefixTarget needs input_ids or inputs_embeds")
        name = cache_argument(self.model)
        other = "cache" if name == "past_key_values" else "past_key_values"
        if other in kwargs:
            raise WeightsError(f"this model's cache is called {name}: pass it by that name")
        samples = inputs.shape[0]
        cache = kwargs.pop(name, None)
        if cache is None:
            cache = self._cache(weights, samples)
        length = self._prefix.config["num_virtual_tokens"]
        mask = kwargs.pop("attention_mask", None)
        if mask is None:
            before = cache.get_seq_length() - length
            mask = inputs.new_ones((samples, before + inputs.shape[1]), dtype=torch.long)
        if kwargs.get("position_ids") is not None:
            kwargs["position_ids"] = kwargs["position_ids"] + length
        mask = torch.cat([_seen(mask, length), mask], dim=-1)
        return self.model(**kwargs, attention_mask=mask, **{name: cache})

    @contextmanager
    def decoder(self, weights: Weights, samples: int) -> Iterator[Any]:
        """See `Target.decoder`: a view of the model whose cache starts with the prefixes."""
        from hypergen.targets.decoding import prefixed_step, refuse_encoder, with_step

        refuse_encoder(self.model, type(self).__name__)
        length = self._prefix.config["num_virtual_tokens"]
        fill = functools.partial(self._cache, weights)
        yield with_step(self.model, functools.partial(prefixed_step, self.model, fill, length))

    def _cache(self, weights: Weights, rows: int) -> Any:
        """Keys and values that hold each row's prefix."""
        from transformers import DynamicCache

        dtype = next(self.model.parameters()).dtype
        cache = DynamicCache()
        for layer, pair in enumerate(self._prefix.key_values(weights)):
            key, value = (t.to(dtype).repeat_interleave(rows // len(weights), dim=0) for t in pair)
            cache.update(key, value, layer)
        return cache


def _seen(mask: Tensor, length: int) -> Tensor:
    """Columns of an attention mask that let every token see the prefix."""
    shape = (*mask.shape[:-1], length)
    # A 4-D mask of numbers is added to the logits; all others say 1 or True.
    is_added = mask.dim() == 4 and mask.is_floating_point()
    return mask.new_zeros(shape) if is_added else mask.new_ones(shape)
