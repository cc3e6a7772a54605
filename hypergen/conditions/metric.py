"""Wanted and current values of metrics as a condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError
from hypergen.conditions.base import Condition, ConditionEncoder
from hypergen.conditions.numbers import Standardizer, fourier, read_numbers


class MetricEncoder(ConditionEncoder):
    """Metric values, such as the loss that a network has and the loss that it should have.

    The prompt of G.pt (Peebles et al., "Learning to Learn with Generative Models of Neural Network
    Checkpoints", 2022, arXiv:2209.12892) is the current loss, the wanted loss and their difference,
    each embedded by frequencies. All values are in units of one spread over the training set
    (they are values of one metric), so that a wanted value can be compared with a current one.

    Args:
        names: What the values are, in the order in which they are given.
        dim: Width of the tokens.
        frequencies: Sines and cosines of each value.
        log: Whether the metric is positive and spans orders of magnitude, such as a loss: its
            logarithm is taken.
        difference: Whether the difference of the last and the first value is a token too.
    """

    input_name: ClassVar[str] = "metric"

    def __init__(
        self,
        names: Sequence[str] = ("current", "wanted"),
        dim: int = 64,
        frequencies: int = 16,
        log: bool = False,
        difference: bool = True,
    ) -> None:
        super().__init__()
        names = list(names)
        if not names or len(set(names)) < len(names) or dim < 1 or frequencies < 1:
            raise ConditionError(
                "MetricEncoder needs different names, and a positive dim and frequencies"
            )
        self.names, self._dim, self.frequencies = names, dim, frequencies
        self.log, self.difference = log, difference and len(names) > 1
        self.statistics = Standardizer(1)
        count = len(names) + self.difference
        self.marks = nn.Parameter(torch.randn(count, dim) * 0.5)
        self.project = nn.Sequential(
            nn.Linear(2 * frequencies + 1, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim)
        )

    @property
    def dim(self) -> int:
        """Width D of the tokens."""
        return self._dim

    def config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {
            "names": self.names,
            "dim": self._dim,
            "frequencies": self.frequencies,
            "log": self.log,
            "difference": self.difference,
        }

    def fit(self, values: Tensor) -> None:
        """Takes the statistics of the metric over the training set, values of any shape."""
        values = torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1)
        self.statistics.fit(self._scale(values))

    def forward(self, inputs: Any) -> Condition:
        """Encodes values, `[B, names]` → tokens `[B, names (+ 1), dim]`.

        A value far outside of the training set is warned of, when not training.

        Raises:
            ConditionError: Another number of values, or (when not training) NaN, infinity, or a
                value that is not positive where the logarithm is taken.
        """
        values = read_numbers(inputs, len(self.names), "metric").to(self.marks)
        scaled = self._scale(values)
        if not self.training:
            self._check(values, scaled)
        z = self.statistics(scaled)
        if self.difference:
            z = torch.cat([z, z[:, -1:] - z[:, :1]], dim=1)
        return Condition.from_tokens(self.project(fourier(z, self.frequencies)) + self.marks)

    def _scale(self, values: Tensor) -> Tensor:
        return values.clamp(min=1e-12).log() if self.log else values

    def _check(self, values: Tensor, scaled: Tensor) -> None:
        names = [f"the {name} value" for name in self.names]
        if self.log and bool((values <= 0).any()):
            row, column = (values <= 0).nonzero()[0].tolist()
            raise ConditionError(
                f"{names[column]} of input {row} is {float(values[row, column]):g}; it must be "
                "above 0, the generator was trained with logarithms"
            )
        self.statistics.check(scaled, names, values)
