"""Seeds that mean the same in every process, whatever PYTHONHASHSEED is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def stable_seed(*parts: object) -> int:
    """Returns a 63-bit seed that depends on the parts alone.

    Args:
        parts: Strings, bytes, numbers, booleans, None, or lists and tuples of these. Types
            count: `stable_seed(1)`, `stable_seed("1")` and `stable_seed(1.0)` differ.

    Returns:
        An integer in [0, 2**63).

    Raises:
        TypeError: A part has no representation that is the same in every process.
    """
    text = _canonical(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """Returns a CPU random generator seeded by `stable_seed` of the parts."""
    import torch

    return torch.Generator().manual_seed(stable_seed(*parts))


def _canonical(value: object) -> str:
    # Exact types only: a subclass may print itself by address, or differently by version.
    if value is None or type(value) in (str, bytes, bool, int, float):
        return repr(value)
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return f"[{','.join(map(_canonical, value))}]"
    raise TypeError(f"a seed cannot be made from {type(value).__name__}: pass str, int or float")
