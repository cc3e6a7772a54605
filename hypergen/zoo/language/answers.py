"""Logits of a causal language model at chosen positions only."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import Tensor, nn

from hypergen._utils.errors import UsageError
from hypergen.specs.peft import structural_copy


def answer_only(model: nn.Module) -> nn.Module:
    """A view of a causal language model that can leave out logits that nobody reads.

    The vocabulary's matrix is the largest of a small model; at the positions of a prompt its
    products would be thrown away. The view shares every tensor with the model, has the same
    modules and parameter names (so specs, targets and PEFT take it for the model itself) and the
    same forward, with one more argument: `answer_positions` `[N, K]`, counted from the end of the
    padded sequence (-1 is the last), after which it returns the logits `[N, K, V]` alone, or the
    model's usual output with these logits when `use_cache=True`.

    Args:
        model: A causal language model of transformers.

    Raises:
        UsageError: The model has no output layer.
    """
    return with_forward(model, _forward)


def with_forward(model: nn.Module, forward: Callable[..., Any]) -> nn.Module:
    """A view of a language model that shares every tensor with it and has another forward.

    Args:
        model: A model of transformers.
        forward: The method.

    Raises:
        UsageError: The model has no output layer.
    """
    getter = getattr(model, "get_output_embeddings", None)
    if not callable(getter) or getter() is None:
        raise UsageError(f"{type(model).__name__} has no output layer: it gives no logits")
    view = structural_copy(model)
    setattr(view, "forward", MethodType(forward, view))  # noqa: B010  (a method, to mypy)
    return view


def _forward(self: Any, *args: Any, answer_positions: Tensor | None = None, **kwargs: Any) -> Any:
    forward = type(self).forward
    if answer_positions is None:
        return forward(self, *args, **kwargs)
    positions = answer_positions

    def gather(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0]
        # From the end, since virtual tokens of prompt tuning lengthen the sequence in front.
        index = (positions + hidden.shape[1])[..., None].expand(-1, -1, hidden.shape[2])
        return (hidden.gather(1, index), *inputs[1:])

    # Before the output layer and not in its place, so that what models do to their logits after
    # it (scaling, soft caps) still happens.
    handle = self.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        output = forward(self, *args, **{"use_cache": False, **kwargs})
    finally:
        handle.remove()
    return output if kwargs.get("use_cache") else output.logits
