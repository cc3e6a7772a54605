"""A prefix made of the keys and values that the frozen model itself has of a context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.conditions import Condition
from hypergen.conditions.cache import rotate
from hypergen.conditions.context import ContextEncoder
from hypergen.generators.base import Generator
from hypergen.specs import PrefixSpec, Weights, WeightSpec


class ContextPrefix(Generator):
    """Text, demonstrations or a document → prefix, from the keys and values of the base itself.

    What HyperTuning (Phang et al., ICML 2023, arXiv:2211.12485) learns from nothing, a prefix that
    stands for a context, is here what the frozen model has of the context anyway, cut to a fixed
    number of tokens (see `ContextEncoder`), plus what a small network for each layer adds to it:

        [k, v] + W₂ gelu(W₁ norm([k, v]) + w₁) + b    for each kept token,

    `W₂` and `b` zero at first. Untrained it is the model with the context in its prompt, as far as
    the tokens kept tell it; training (through the frozen model) can only add to that. Keys are
    changed before their rotation and then rotated to positions 0 … slots-1, so that the exported
    prefix is an ordinary one of PEFT.

    Cost: reading the context is one forward pass of the base (two with selection); the network is
    4 · layers · slots · width · hidden operations, with width = 2 · kv_heads · head_dim.

    Args:
        spec: A `PrefixSpec` of the encoder's model, of as many virtual tokens as it keeps.
        encoder: A `ContextEncoder`.
        hidden: Width of the network of a layer; 0 for the bare keys and values.
        bias: Whether b has a value for every kept position (`"slot"`), one for all (`"shared"`),
            or is left out (`"none"`).
        dropout: Share of hidden units left out in training.

    Raises:
        SpecError: Another spec or encoder, or they do not fit each other.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ContextEncoder,
        hidden: int = 64,
        bias: str = "shared",
        dropout: float = 0.0,
    ) -> None:
        if not isinstance(spec, PrefixSpec) or not isinstance(encoder, ContextEncoder):
            raise SpecError("ContextPrefix makes a PrefixSpec from a ContextEncoder")
        config = {"hidden": hidden, "bias": bias, "dropout": dropout}
        super().__init__(spec, encoder, config)
        own = spec.config
        shape = (own["num_layers"], own["num_key_value_heads"], own["head_dim"])
        if encoder.shape != shape or encoder.slots != own["num_virtual_tokens"]:
            raise SpecError(
                f"the encoder keeps {encoder.slots} tokens of layers, heads and widths "
                f"{encoder.shape}; the prefix has {own['num_virtual_tokens']} of {shape}"
            )
        if bias not in ("slot", "shared", "none"):
            raise SpecError(f"bias is {bias!r}: use 'slot', 'shared' or 'none'")
        layers, heads, head_dim = shape
        width, slots = 2 * heads * head_dim, encoder.slots
        self.shape = shape
        self.dropout = nn.Dropout(dropout)
        if hidden:
            self.first = nn.Parameter(torch.randn(layers, width, hidden) * width**-0.5)
            self.first_bias = nn.Parameter(torch.zeros(layers, 1, hidden))
            self.second = nn.Parameter(torch.zeros(layers, hidden, width))
        if bias != "none":
            self.bias = nn.Parameter(torch.zeros(layers, slots if bias == "slot" else 1, width))
        # Kept with the generator, which then needs no model to turn keys.
        self.register_buffer("rotation", encoder.rotation())
        self.rotation: Tensor
        if not hidden and bias == "none":
            # Nothing to train; Lightning and `device` want a parameter all the same.
            self.scale = nn.Parameter(torch.ones(()))

    def forward(self, condition: Condition) -> Weights:
        """Makes one prefix for each row of a condition of `ContextEncoder`."""
        layers, heads, head_dim = self.shape
        # [B, slots, layers, 2 · heads · head_dim] → by layer, for one batched product.
        x = condition.tokens.unflatten(-1, (layers, -1)).permute(2, 0, 1, 3)
        out = x
        if hasattr(self, "first"):
            normed = nn.functional.rms_norm(x, (x.shape[-1],))
            flat = normed.flatten(1, 2)
            hidden = self.dropout(nn.functional.gelu(flat @ self.first + self.first_bias))
            out = out + (hidden @ self.second).view_as(x)
        if hasattr(self, "bias"):
            out = out + self.bias[:, None]
        if hasattr(self, "scale"):
            out = out * self.scale
        # [layers, B, slots, 2, heads, head_dim] → keys and values [B, layers, heads, slots, …]
        keys, values = out.unflatten(-1, (2, heads, head_dim)).permute(3, 1, 0, 4, 2, 5)
        both = torch.stack([rotate(keys, self.rotation), values], 2).flatten(1, 2)
        return Weights(self.spec, [both.transpose(2, 3).flatten(-2)])
