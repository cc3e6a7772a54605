"""Prefixes as an emission target: keys and values put before every layer's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.specs.base import WeightSpec
from hypergen.specs.models import base_config
from hypergen.specs.slot import Slot
from hypergen.specs.weights import Weights


class PrefixSpec(WeightSpec):
    """Generated keys and values of virtual tokens, for every attention layer.

    Li and Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", ACL 2021,
    arXiv:2101.00190. One key slot and one value slot `[tokens, kv_heads * head_dim]` a layer, all
    of one group; the exported file is PEFT's single `prompt_embeddings`.

    Args:
        model: A transformers model with a `config`.
        num_virtual_tokens: Length of the prefix.
        task_type: PEFT's task type for the exported file.

    Raises:
        SpecError: The model has no transformers config with layers and heads.
    """

    kind: ClassVar[str] = "prefix"

    def __init__(
        self, model: nn.Module, num_virtual_tokens: int = 8, task_type: str | None = "CAUSAL_LM"
    ) -> None:
        if num_virtual_tokens < 1:
            raise SpecError("num_virtual_tokens must be at least 1")
        layers, heads, kv_heads, head_dim = attention_shape(model)
        width = kv_heads * head_dim
        slots = [
            Slot(
                name=f"prefix.{layer}.{part}",
                shape=(num_virtual_tokens, width),
                role="prefix",
                module=f"prefix.{layer}",
                layer=layer,
                fan_in=num_virtual_tokens,
                fan_out=width,
                std=0.02,
                scale=0.5,
            )
            for layer in range(layers)
            for part in ("key", "value")
        ]
        config = {
            "num_virtual_tokens": num_virtual_tokens,
            "num_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "task_type": task_type,
            "base": base_config(model),
        }
        super().__init__(slots, config)

    def key_values(self, weights: Weights) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer, each `[B, kv_heads, tokens, head_dim]`."""
        heads = self.config["num_key_value_heads"]
        stacked = weights.groups[0].unflatten(-1, (heads, -1)).transpose(-2, -3)
        return [(stacked[:, i], stacked[:, i + 1]) for i in range(0, len(self.slots), 2)]

    def to_peft(self, weights: Weights) -> Tensor:
        """PEFT's `prompt_embeddings` `[tokens, layers * 2 * kv_heads * head_dim]` of one prefix."""
        return weights.groups[0][0].transpose(0, 1).flatten(1)

    def from_peft(self, prompt_embeddings: Tensor) -> Weights:
        """The inverse of `to_peft`."""
        tokens, count = self.config["num_virtual_tokens"], len(self.slots)
        return Weights(self, [prompt_embeddings.reshape(1, tokens, count, -1).transpose(1, 2)])


def attention_shape(model: nn.Module) -> tuple[int, int, int, int]:
    """Layers, heads, key-value heads and head width, read off a transformers config.

    Raises:
        SpecError: The model has no such config.
    """
    config: Any = getattr(model, "config", None)
    if config is None or isinstance(config, Mapping):
        raise SpecError(
            f"{type(model).__name__} has no transformers config: PrefixSpec needs its layer and "
            "head counts"
        )
    config = config.get_text_config() if hasattr(config, "get_text_config") else config

    def read(*names: str) -> int | None:
        return next((int(v) for n in names if (v := getattr(config, n, None)) is not None), None)

    layers, heads = read("num_hidden_layers"), read("num_attention_heads")
    hidden = read("hidden_size")
    if layers is None or heads is None or hidden is None:
        raise SpecError(
            f"the config of {type(model).__name__} lacks num_hidden_layers, num_attention_heads or "
            "hidden_size: it cannot take a prefix"
        )
    kv_heads = read("num_key_value_heads") or heads
    return layers, heads, kv_heads, read("head_dim") or hidden // heads
