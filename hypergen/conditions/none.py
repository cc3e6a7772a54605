"""NoCondition: nothing is known, for generators that are sampled without a condition."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from hypergen._utils.errors import ConditionError
from hypergen.conditions.base import Condition, ConditionEncoder


class NoCondition(ConditionEncoder):
    """One token of zeros for each row that is asked for.

    Generators with this encoder are called without inputs: `generate(n=100, seed=0)`.
    """

    input_name: ClassVar[str] = "none"
    constant: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(1), persistent=False)
        self.zero: Tensor

    @property
    def dim(self) -> int:
        """Width of the token: 1."""
        return 1

    def config(self) -> dict[str, Any]:
        """It takes no arguments."""
        return {}

    def forward(self, inputs: int) -> Condition:
        """Makes a condition of `inputs` rows.

        Raises:
            ConditionError: Not a positive whole number.
        """
        if isinstance(inputs, bool) or not isinstance(inputs, int) or inputs < 1:
            raise ConditionError(f"NoCondition takes a number of rows, not {inputs!r}")
        return Condition.from_tokens(self.zero.expand(inputs, 1, 1).clone())
