"""Calls architectures with parameters that something else made."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hypergen._utils.errors import WeightsError
from hypergen.specs import Weights
from hypergen.zoo.architectures.base import Architecture


@lru_cache(maxsize=2048)
def skeleton(architecture: Architecture) -> tuple[nn.Module, frozenset[str]]:
    """A module without memory for its parameters, and their names; one for equal architectures."""
    with torch.inference_mode(False):  # validation may ask first, training after it
        module = architecture.meta()
    return module, frozenset(name for name, _ in module.named_parameters())


def call(
    network: Architecture | nn.Module, parameters: Mapping[str, Tensor], inputs: Tensor
) -> Tensor:
    """Outputs of a network with given parameters, differentiable in both.

    Args:
        network: An architecture, or a module; of this the buffers are used, and updated.
        parameters: Name → parameter.
        inputs: What its forward takes.

    Raises:
        WeightsError: A parameter lacks, or there is one more; names it.
    """
    if isinstance(network, Architecture):
        module, names = skeleton(network)
    else:
        module, names = network, frozenset(name for name, _ in network.named_parameters())
    if parameters.keys() != names:
        lacks = sorted(names - parameters.keys())
        what = "lack" if lacks else "have an unexpected"
        which = lacks[0] if lacks else min(parameters.keys() - names)
        raise WeightsError(f"weights for {type(module).__name__} {what} parameter {which!r}")
    out: Tensor = functional_call(module, dict(parameters), (inputs,))
    return out


def predicted_norm(weights: Weights) -> Tensor:
    """Sum of the norms of all tensors, over the batch (the regulariser of GHN-3)."""
    norms = [t.float().reshape(*t.shape[:2], -1).norm(dim=2).sum() for t in weights.groups]
    total = norms[0]
    for norm in norms[1:]:
        total = total + norm
    return total
