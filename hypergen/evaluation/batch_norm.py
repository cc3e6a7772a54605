"""Batch-norm statistics of many networks, re-estimated on training data in one pass a layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm


def norm_layers(module: nn.Module) -> list[str]:
    """Paths of the batch-norm layers that keep running statistics, in the order of the module."""
    return [
        path
        for path, layer in module.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]


@torch.no_grad()
def reestimate(
    module: nn.Module, weights: dict[str, Tensor], inputs: Tensor, members: int
) -> dict[str, Tensor]:
    """Running means and variances as the layers see them on these inputs.

    Networks whose weights were averaged or generated have other activations than the stored
    statistics say (Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
    Generalization", UAI 2018, arXiv:1803.05407, section 3.2). Every layer takes the statistics of
    one batch, which is all of `inputs`: each layer normalises by what it measures, so that the
    layers after it see what they will see when the statistics are used.

    Args:
        module: One network. It is left in evaluation mode.
        weights: Name → `[M, *shape]`.
        inputs: `[N, *shape]` of the training split, N at least 2.
        members: Number of networks M.

    Returns:
        The weights, with `running_mean` and `running_var` of every batch-norm layer replaced.
    """
    paths = norm_layers(module)
    if not paths:
        return weights
    layers = dict(module.named_modules())
    momenta = {path: layers[path].momentum for path in paths}
    buffers = [f"{path}.{leaf}" for path in paths for leaf in ("running_mean", "running_var")]
    fresh = {name: torch.zeros_like(weights[name]) for name in buffers}
    fixed = {name: tensor for name, tensor in weights.items() if name not in fresh}

    def run(own: dict[str, Tensor], statistics: dict[str, Tensor]) -> dict[str, Tensor]:
        functional_call(module, {**own, **statistics}, (inputs,))
        return statistics  # batch norm has written into them

    try:
        for path in paths:
            layers[path].momentum = 1.0  # the statistics of this batch, nothing of the old ones
            layers[path].train()
        written: dict[str, Any] = vmap(run)(fixed, fresh)
    finally:
        for path, momentum in momenta.items():
            layers[path].momentum = momentum
        module.eval()
    return {**weights, **written}
