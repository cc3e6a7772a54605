"""Many multilayer perceptrons with different weights, as batched products without vmap."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ELEMENTWISE = (
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.LeakyReLU,
    nn.ELU,
    nn.Identity,
    nn.Dropout,
)


def is_mlp(model: nn.Module) -> bool:
    """Whether a model is a plain `nn.Sequential` of linear and elementwise layers."""
    return type(model) is nn.Sequential and all(
        type(layer) is nn.Linear or isinstance(layer, _ELEMENTWISE) for layer in model
    )


def run_mlp(model: nn.Sequential, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Runs `B` copies of an MLP that differ in some parameters.

    Weights multiply from the left, Y ᵀ = W X ᵀ, so that the gradient of W comes out of its product
    in W's own layout and needs no transposed copy.

    Args:
        model: The architecture, and the parameters that are shared.
        parameters: Parameter name → `[B, *shape]`.
        x: `[B, S, in]`.

    Returns:
        `[B, S, out]`.
    """
    for name, layer in model._modules.items():  # named_children leaves repeated layers out
        assert layer is not None
        if not isinstance(layer, nn.Linear):
            x = layer(x)
            continue
        weight, bias = parameters.get(f"{name}.weight"), parameters.get(f"{name}.bias")
        if weight is None:
            x = F.linear(x, layer.weight, layer.bias if bias is None else None)
            x = x if bias is None else x + bias[:, None]
            continue
        if bias is None and layer.bias is not None:
            bias = layer.bias.expand(len(x), -1)
        if bias is None:
            x = torch.bmm(weight, x.mT).mT
        else:
            x = torch.baddbmm(bias[..., None], weight, x.mT).mT
    return x
