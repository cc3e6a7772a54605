"""LoRA on a frozen network: a different adapter for each sample, by batched products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hypergen.specs import LoRASpec, Weights
from hypergen.targets.base import Target, samples_of
from hypergen.targets.checkpoint import checkpointed, repeated_layers
from hypergen.targets.hooks import HookedModules, find_modules

_Pairs = dict[str, tuple[Tensor, Tensor, float]]


class LoRATarget(Target):
    """Adds s · B_b A_b x to the output of every adapted module, b being the sample's network.

    The update is two batched products per module over all samples and positions of a network at
    once; A and B are never repeated over positions or samples, and ΔW is never formed. Hooks are
    installed once and do nothing outside a call.

    Args:
        model: The frozen network.
        spec: A `LoRASpec` made for it.
        checkpoint: Compute the activations of the network's repeated layers again in the backward
            pass instead of keeping them; a transformers model then keeps no keys and values unless
            asked to.

    Raises:
        WeightsError: The spec was made for another base, or a module of it is missing here.
        SpecError: `checkpoint` is set and the network repeats no layer.
    """

    def __init__(self, model: nn.Module, spec: LoRASpec, checkpoint: bool = False) -> None:
        super().__init__(model, spec)
        self._layers = repeated_layers(model) if checkpoint else []
        self._scaling = {path: spec.scaling(path) for path in spec.modules}
        self._names = {path: spec.pair_names(path) for path in spec.modules}
        self._embedding = {
            p for p in spec.modules if spec.config["modules"][p]["type"] == "embedding"
        }
        adapted = find_modules(model, spec.modules)
        self._hooks: HookedModules[_Pairs] = HookedModules(adapted, self._adapt)

    def _adapt(self, pairs: _Pairs, path: str, x: Tensor, output: Tensor) -> Tensor:
        a, b, scaling = pairs[path]
        networks = a.shape[0]
        dtype = output.dtype
        if path in self._embedding:
            rows = x.reshape(networks, -1)  # token numbers: column lookup in A
            index = rows[:, None].expand(-1, a.shape[1], -1)
            low = a.gather(2, index).transpose(1, 2)
        else:
            low = x.reshape(networks, -1, x.shape[-1]).to(a.dtype) @ a.mT
        base = output.reshape(networks, -1, output.shape[-1])
        return torch.baddbmm(base.to(b.dtype), low, b.mT, alpha=scaling).view_as(output).to(dtype)

    def call(self, weights: Weights, *args: Any, **kwargs: Any) -> Any:
        """Runs the network once for all samples."""
        pairs = self._pairs(weights)
        samples = samples_of(weights, args, kwargs)
        if not self._layers:
            with self._hooks.active(pairs, samples):
                return self.model(*args, **kwargs)
        if getattr(getattr(self.model, "config", None), "use_cache", False):
            kwargs.setdefault("use_cache", False)

        def active() -> AbstractContextManager[None]:
            return self._hooks.active(pairs, samples)

        with active(), checkpointed(self._layers, active):
            return self.model(*args, **kwargs)

    @contextmanager
    def decoder(self, weights: Weights, samples: int) -> Iterator[Any]:
        """See `Target.decoder`: the model itself, its hooks active."""
        from hypergen.targets.decoding import own_forward

        with self._hooks.active(self._pairs(weights), samples), own_forward(self.model) as model:
            yield model

    def _pairs(self, weights: Weights) -> _Pairs:
        return {
            path: (weights[a], weights[b], self._scaling[path])
            for path, (a, b) in self._names.items()
        }
