"""Where generators that sample weights find the training checkpoints of a data module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def training_rows(data: Any) -> Callable[[], Tensor] | None:
    """A function that returns the training checkpoints `[N, numel]` of a data module.

    They are read when it is called, not before.

    Args:
        data: Has `training_weights()`, or `splits` with a view `train` of a zoo, or a `zoo`
            (weights and their tasks, all for training).

    Returns:
        None if it has none of these.
    """
    if hasattr(data, "training_weights"):
        found: Callable[[], Tensor] = data.training_weights
        return found
    # Not asked of the instance: that would open or build the zoo.
    if hasattr(type(data), "splits"):
        return lambda: data.splits["train"].flat()
    if hasattr(type(data), "zoo"):
        return lambda: data.zoo[0].flat().detach()
    return None
