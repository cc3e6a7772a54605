"""The unchanged network of a target, called as a target is."""

from __future__ import annotations

from typing import Any

from hypergen.specs import Weights
from hypergen.targets import Target


class BaseCall:
    """The unchanged base of a target, called as a target is.

    Args:
        target: Whose base it is.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def __call__(self, weights: Weights, batch: Any) -> Any:
        """Runs the base; the weights do not matter."""
        return self.target.base(batch)
