"""A vector of bits or numbers as a condition: one token for each component."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError
from hypergen.conditions.base import Condition, ConditionEncoder
from hypergen.conditions.numbers import Standardizer, read_numbers


class VectorEncoder(ConditionEncoder):
    """Class bits, hyperparameters or any other numbers of a fixed order.

    The condition of RPG's unseen tasks (Wang et al., "Recurrent Diffusion for Large-Scale
    Parameter Generation", 2025, arXiv:2501.11587) is the 10-bit vector of the classes that a binary
    task asks for. Here each component is a token of its own, base_k + z_k · slope_k, with z the
    component in units of its spread over the training set. A combination that was never seen is
    made of tokens that were: what a bit does can be learned once.

    Args:
        length: Number K of components.
        dim: Width of the tokens.
        names: What the components are called in messages.
    """

    input_name: ClassVar[str] = "vector"

    def __init__(self, length: int, dim: int = 64, names: Sequence[str] | None = None) -> None:
        super().__init__()
        if length < 1 or dim < 1:
            raise ConditionError("VectorEncoder needs a positive length and dim")
        if names is not None and len(names) != length:
            raise ConditionError(f"{len(names)} names for the {length} components of a vector")
        self.length, self._dim = length, dim
        self.names = [f"component {k}" for k in range(length)] if names is None else list(names)
        self.base = nn.Parameter(torch.randn(length, dim))
        self.slope = nn.Parameter(torch.randn(length, dim))
        self.statistics = Standardizer(length)

    @property
    def dim(self) -> int:
        """Width D of the tokens."""
        return self._dim

    def config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"length": self.length, "dim": self._dim, "names": self.names}

    def fit(self, values: Tensor) -> None:
        """Takes the statistics of `[N, K]` training vectors."""
        self.statistics.fit(read_numbers(values, self.length, "vector"))

    def forward(self, inputs: Any) -> Condition:
        """Encodes vectors, `[B, K]` → tokens `[B, K, dim]`.

        A value far outside of the training set is warned of, when not training.

        Raises:
            ConditionError: Another length, or (when not training) NaN or infinity.
        """
        values = read_numbers(inputs, self.length, "vector")
        if not self.training:
            self.statistics.check(values.to(self.base.device), self.names)
        z = self.statistics(values.to(self.base))
        return Condition.from_tokens(self.base + z[..., None] * self.slope)
