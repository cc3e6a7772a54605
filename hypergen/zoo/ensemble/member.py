"""One network of a stack: its seed, its task and its own hyperparameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypergen._utils.errors import UsageError

if TYPE_CHECKING:
    from hypergen.zoo.networks import Network


@dataclass(frozen=True)
class Member:
    """One network of a stack.

    Attributes:
        seed: Seed of the order of the data, and of the starting weights.
        task: Number of the task in `Problem.tasks`.
        lr: Peak learning rate, > 0.
        weight_decay: Decay of the weight matrices and kernels (biases and scales of normalisation
            layers have none): decoupled for AdamW, added to the gradient for SGD, as in torch.
        network: The member's own architecture where it is narrower than the stack's.
        start: Seed of the starting weights where it is another: members that share it start from
            the same values.

    Raises:
        UsageError: A learning rate or decay that no training can use.
    """

    seed: int
    task: int
    lr: float
    weight_decay: float = 0.0
    network: Network | None = None
    start: int | None = None

    def __post_init__(self) -> None:
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise UsageError(f"a member's lr must be positive and finite, not {self.lr}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise UsageError(
                f"a member's weight_decay must be finite and not negative, not {self.weight_decay}"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {
            "seed": self.seed,
            "task": self.task,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "network": None if self.network is None else self.network.to_dict(),
            "start": self.start,
        }
