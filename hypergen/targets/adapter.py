"""Bottleneck adapters on a frozen network, a different one for each sample."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hypergen.specs import AdapterSpec, Weights
from hypergen.targets.base import Target, samples_of
from hypergen.targets.checkpoint import checkpointed, repeated_layers
from hypergen.targets.hooks import HookedModules, find_modules

_ACTIVATIONS = {"relu": torch.relu, "gelu": nn.functional.gelu, "tanh": torch.tanh}
_Parts = dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]


class AdapterTarget(Target):
    """Adds U_b act(D_b h + d_b) + u_b to the output h of every adapted module.

    Args:
        model: The frozen network.
        spec: An `AdapterSpec` made for it.
        checkpoint: Compute the activations of the network's repeated layers again in the backward
            pass instead of keeping them; a transformers model then keeps no keys and values unless
            asked to.

    Raises:
        WeightsError: The spec was made for another base, or a module of it is missing here.
        SpecError: `checkpoint` is set and the network repeats no layer.
    """

    def __init__(self, model: nn.Module, spec: AdapterSpec, checkpoint: bool = False) -> None:
        super().__init__(model, spec)
        self._layers = repeated_layers(model) if checkpoint else []
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
        parts = self._parts(weights)
        samples = samples_of(weights, args, kwargs)
        if not self._layers:
            with self._hooks.active(parts, samples):
                return self.model(*args, **kwargs)
        if getattr(getattr(self.model, "config", None), "use_cache", False):
            kwargs.setdefault("use_cache", False)

        def active() -> AbstractContextManager[None]:
            return self._hooks.active(parts, samples)

        with active(), checkpointed(self._layers, active):
            return self.model(*args, **kwargs)

    @contextmanager
    def decoder(self, weights: Weights, samples: int) -> Iterator[Any]:
        """See `Target.decoder`: the model itself, its hooks active."""
        from hypergen.targets.decoding import own_forward

        with self._hooks.active(self._parts(weights), samples), own_forward(self.model) as model:
            yield model

    def _parts(self, weights: Weights) -> _Parts:
        names = ("down.weight", "down.bias", "up.weight", "up.bias")
        parts: _Parts = {}
        for path in self._paths:
            down, down_bias, up, up_bias = (weights[f"{path}.adapter_{n}"] for n in names)
            parts[path] = (down, down_bias, up, up_bias)
        return parts
