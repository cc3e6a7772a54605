"""SIREN: implicit neural representations."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hypergen._utils.errors import UsageError
from hypergen.specs import Slot
from hypergen.zoo.canonical.symmetry import Place, Symmetry, group
from hypergen.zoo.networks.base import Network, size, sizes


class Sine(nn.Module):
    """x → sin(ω x)."""

    def __init__(self, omega: float) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept."""
        return torch.sin(self.omega * x)

    def extra_repr(self) -> str:
        """ω, as `print` shows it."""
        return f"omega={self.omega}"


@dataclass(frozen=True)
class SIREN(Network):
    """Coordinates `[N, inputs]` in [-1, 1] → values `[N, outputs]` of a signal.

    Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions",
    NeurIPS 2020, arXiv:2006.09661. Weights start with the variance of the paper's uniform
    distributions: 1 / (3 n²) in the first layer, 2 / (n ω²) after it, 1 / (3 n) for biases.

    Args:
        inputs: Number of coordinates: 2 for images.
        hidden: Widths of the hidden layers.
        outputs: Number of channels.
        omega: Frequency ω of every layer.

    Raises:
        UsageError: A width below 1, no hidden layer, or ω that is not positive.
    """

    inputs: int = 2
    hidden: tuple[int, ...] = (32, 32)
    outputs: int = 1
    omega: float = 30.0

    def __post_init__(self) -> None:
        size(self, "inputs", self.inputs)
        size(self, "outputs", self.outputs)
        object.__setattr__(self, "hidden", sizes(self, "hidden", self.hidden))
        size(self, "number of hidden layers", len(self.hidden))
        if isinstance(self.omega, bool) or not isinstance(self.omega, (int, float)):
            raise UsageError(f"omega of SIREN must be a number, not {self.omega!r}")
        if not 0 < self.omega < float("inf"):
            raise UsageError(f"omega of SIREN must be positive and finite, not {self.omega}")
        object.__setattr__(self, "omega", float(self.omega))

    def module(self) -> nn.Module:
        """`nn.Sequential` of Linear, Sine, …, Linear."""
        widths = (self.inputs, *self.hidden)
        layers: list[nn.Module] = []
        for width, units in itertools.pairwise(widths):
            layers += [nn.Linear(width, units), Sine(self.omega)]
        return nn.Sequential(*layers, nn.Linear(widths[-1], self.outputs))

    def start(self, slot: Slot) -> Slot:
        """The variances of the paper."""
        layer = int(slot.module) // 2
        fan_in = (self.inputs, *self.hidden)[layer]
        if slot.role == "bias":
            std = (3 * fan_in) ** -0.5
        elif layer == 0:
            std = 3**-0.5 / fan_in
        else:
            std = (2 / fan_in) ** 0.5 / self.omega
        return replace(slot, mean=0.0, std=std, scale=std)

    def symmetry(self) -> Symmetry:
        """One group for each hidden layer."""
        return Symmetry(
            self.spec(),
            [
                group(
                    f"hidden{i}",
                    units,
                    [f"{2 * i}.weight", f"{2 * i}.bias"],
                    [Place(f"{2 * i + 2}.weight", 1)],
                )
                for i, units in enumerate(self.hidden)
            ],
        )
