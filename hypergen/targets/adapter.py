"""Bottleneck adapters on a frozen network, a different one for each sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hypergen.specs import AdapterSpec, Weights
from hypergen.targets.base import Target, samples_of
from hypergen.targets.hooks import HookedModules, find_modules

_ACTIVATIONS = {"relu": torch.relu, "gelu": nn.functional.gelu, "tanh": torch.tanh}
_Parts = dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]


class AdapterTarget(Target):
    """Adds U_b act(D_b h + d_b) + u_b to the output h of every adapted module.

    Args:
        model: The frozen network.
        spec: An `AdapterSpec` made for it.

    Raises:
        WeightsError: The spec was made for another base, or a module of it is missing here.
    """

    def __init__(self, model: nn.Module, spec: AdapterSpec) -> None:
        super().__init__(model, spec)
        self._paths = spec.modules
        self._activation = _ACTIVATIONS[spec.config["activation"]]
        adapted = find_modules(model, spec.modules)
        self._hooks: HookedModules[_Parts] = HookedModules(adapted, self._adapt)

    def _adapt(self, parts: _Parts, path: str, _: Tensor, output: Tensor) -> Tensor:
        down, down_bias, up, up_bias = parts[path]
        hidden = output.reshape(down.shape[0], -1, output.shape[-1]).to(down.dtype)
        inner = self._activation(torch.baddbmm(down_bias[:, None], hidden, down.mT))
        return (
            (hidden + torch.baddbmm(up_bias[:, None], inner, up.mT))
            .view_as(output)
            .to(output.dtype)
        )

    def call(self, weights: Weights, *args: Any, **kwargs: Any) -> Any:
        """Runs the network once for all samples."""
        names = ("down.weight", "down.bias", "up.weight", "up.bias")
        parts: _Parts = {}
        for path in self._paths:
            down, down_bias, up, up_bias = (weights[f"{path}.adapter_{n}"] for n in names)
            parts[path] = (down, down_bias, up, up_bias)
        with self._hooks.active(parts, samples_of(weights, args, kwargs)):
            return self.model(*args, **kwargs)
