"""Multilayer perceptrons."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from hypergen.specs import Slot
from hypergen.zoo.canonical.scaling import ScalingGroup, scaling_of
from hypergen.zoo.canonical.symmetry import Place, Symmetry, group
from hypergen.zoo.networks.base import Network, choice, size, sizes
from hypergen.zoo.networks.norm import NORMS, norm_slots

# Activation → gain of the weights that feed it; √2 also where the function is close to ReLU.
GAINS = {
    "relu": 2**0.5,
    "gelu": 2**0.5,
    "silu": 2**0.5,
    "leaky_relu": 2**0.5,
    "elu": 2**0.5,
    "tanh": 5 / 3,
    "sigmoid": 1.0,
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


@dataclass(frozen=True)
class MLP(Network):
    """`[N, inputs]` → `[N, outputs]`: linear layers with an activation between them.

    Without `norm` it is a plain `nn.Sequential` of linear and elementwise layers, which
    `FunctionalTarget` runs as batched products.

    Args:
        inputs: Number of inputs.
        hidden: Widths of the hidden layers; none makes a linear model.
        outputs: Number of outputs.
        activation: relu, gelu, silu, leaky_relu, elu, tanh or sigmoid.
        norm: Normalisation before each activation: batch, layer or None.

    Raises:
        UsageError: A width below 1, or an unknown activation or norm.
    """

    inputs: int = 64
    hidden: tuple[int, ...] = (32, 32)
    outputs: int = 10
    activation: str = "relu"
    norm: str | None = None

    def __post_init__(self) -> None:
        size(self, "inputs", self.inputs)
        size(self, "outputs", self.outputs)
        object.__setattr__(self, "hidden", sizes(self, "hidden", self.hidden))
        choice(self, "activation", self.activation, ACTIVATIONS)
        choice(self, "norm", self.norm, NORMS)

    def module(self) -> nn.Module:
        """`nn.Sequential` of Linear, norm, activation, …, Linear."""
        layers: list[nn.Module] = []
        width, norm = self.inputs, NORMS[self.norm]
        for units in self.hidden:
            layers.append(nn.Linear(width, units))
            if norm is not None:
                layers.append(norm(units))
            layers.append(ACTIVATIONS[self.activation]())
            width = units
        return nn.Sequential(*layers, nn.Linear(width, self.outputs))

    def start(self, slot: Slot) -> Slot:
        """Gain of the activation (1 for the outputs) over sqrt(fan_in)."""
        if slot.role != "weight" or slot.fan_in is None:
            return slot
        head = slot.module == str(self._stride * len(self.hidden))
        std = (1.0 if head else GAINS[self.activation]) / slot.fan_in**0.5
        return replace(slot, std=std, scale=std)

    def symmetry(self) -> Symmetry:
        """One group for each hidden layer."""
        groups = []
        for i, units in enumerate(self.hidden):
            here, after = self._stride * i, self._stride * (i + 1)
            rows = [f"{here}.weight", f"{here}.bias", *norm_slots(self.norm, str(here + 1))]
            groups.append(group(f"hidden{i}", units, rows, [Place(f"{after}.weight", 1)]))
        return Symmetry(self.spec(), groups)

    def scaling(self) -> tuple[ScalingGroup, ...]:
        """Every hidden layer with ReLU or leaky ReLU."""
        if self.activation not in ("relu", "leaky_relu"):
            return ()
        return scaling_of(self.symmetry(), norm=self.norm is not None)

    @property
    def _stride(self) -> int:
        """Modules of `nn.Sequential` from one linear layer to the next."""
        return 2 if self.norm is None else 3
