"""Activations of the repeated layers of a frozen network, computed again instead of kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hypergen._utils.errors import SpecError

_CACHES = ("cache", "past_key_values", "past_key_value", "layer_past")


def repeated_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that a network repeats: those that transformers checkpoints, else its lists.

    Args:
        model: Any module.

    Returns:
        Layers, none of which is inside another one.

    Raises:
        SpecError: The network repeats no layer.
    """
    known = [m for m in model.modules() if _is_checkpointed_by_transformers(m)]
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    found = known or [layer for layers in lists for layer in layers]
    inner = {id(m) for layer in found for m in layer.modules() if m is not layer}
    layers = [layer for layer in found if id(layer) not in inner]
    if not layers:
        raise SpecError(
            f"{type(model).__name__} repeats no layer: there is nothing to checkpoint, leave "
            "checkpoint out"
        )
    return layers


def _is_checkpointed_by_transformers(module: nn.Module) -> bool:
    # By name: importing transformers here would make every target slow to load.
    return any(c.__name__ == "GradientCheckpointingLayer" for c in type(module).__mro__)


@contextmanager
def checkpointed(
    layers: Sequence[nn.Module], context: Callable[[], AbstractContextManager[Any]]
) -> Iterator[None]:
    """Calls inside keep the inputs of the layers alone for the backward pass.

    Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174. Layers that get
    keys and values to add to run as they are: a second run would add to them twice.

    Args:
        layers: Layers of a network in evaluation mode, see `repeated_layers`.
        context: What the layers run in when they are computed again: the backward pass comes when
            the call, and with it what hooks need to know, is over.
    """
    if not torch.is_grad_enabled():
        yield
        return

    def wrap(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if any(kwargs.get(name) is not None for name in _CACHES):
                return forward(*args, **kwargs)
            return checkpoint(
                forward,
                *args,
                use_reentrant=False,
                preserve_rng_state=False,  # evaluation mode: nothing is drawn
                context_fn=lambda: (nullcontext(), context()),
                **kwargs,
            )

        return run

    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        vars(layer)["forward"] = wrap(layer.forward)
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            if own is None:
                del vars(layer)["forward"]
            else:
                vars(layer)["forward"] = own
