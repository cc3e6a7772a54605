"""What weights were made from, as it is written beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hypergen.specs import Weights

_FEW = 64  # most numbers of a tensor that are written down one by one


def told(value: Any) -> Any:
    """A raw input of a generator as provenance, JSON-serialisable.

    Args:
        value: Texts, numbers, and lists and mappings of these stay as they are; tensors become
            lists, or a note of dtype and shape if they are large; weights tell their number and
            their own provenance.
    """
    if isinstance(value, Weights):
        return {"weights": len(value), **value.provenance}
    if isinstance(value, Tensor):
        if value.numel() <= _FEW:
            return value.tolist()
        return f"{str(value.dtype).removeprefix('torch.')} numbers of shape {list(value.shape)}"
    if isinstance(value, Mapping):
        return {str(name): told(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [told(part) for part in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return type(value).__name__
