"""Target: a frozen network that is called with generated weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hypergen._utils.errors import WeightsError
from hypergen.specs import Weights, WeightSpec
from hypergen.specs.models import another_base, check_base


class Target(nn.Module, ABC):
    """A frozen network plus the spec of the weights that it takes.

    `target(weights, batch)` runs `B` differently adapted networks in one call: the first axis of
    every tensor of the batch holds `N` samples in `B` equal, consecutive blocks, the first `N / B`
    of which belong to the first network. The call is differentiable with respect to the weights.

    The network is put in evaluation mode and its parameters stop requiring gradients; their values
    are never changed.

    Args:
        model: The frozen network.
        spec: What the weights mean; must have been made for this network.

    Raises:
        WeightsError: The spec was made for another base model; names both.
    """

    def __init__(self, model: nn.Module, spec: WeightSpec) -> None:
        super().__init__()
        check_base(model, spec.config.get("base"))
        self.model = model.eval().requires_grad_(False)
        self.spec = spec

    def train(self, mode: bool = True) -> Target:
        """Stays in evaluation mode: the target is frozen, its dropout and statistics too."""
        return super().train(False)

    @abstractmethod
    def call(self, weights: Weights, *args: Any, **kwargs: Any) -> Any:
        """Runs the network; arguments are checked and split already."""

    def forward(self, weights: Weights, batch: Any) -> Any:
        """Runs the network with generated weights.

        Args:
            weights: `B` networks of this target's spec.
            batch: The network's input: a tensor, a tuple of arguments or a mapping of keyword
                arguments, `N` samples, `N` a multiple of `B`.

        Returns:
            What the network returns, for `N` samples.

        Raises:
            WeightsError: Weights of another spec, or `N` is not a multiple of `B`.
        """
        if weights.spec is not self.spec and weights.spec != self.spec:
            raise WeightsError(self._difference(weights.spec))
        args, kwargs = as_arguments(batch)
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.dim() and value.shape[0] % len(weights):
                raise WeightsError(
                    f"{value.shape[0]} samples cannot be split evenly over {len(weights)} networks"
                )
        return self.call(weights, *args, **kwargs)

    def base(self, batch: Any) -> Any:
        """Runs the unchanged network."""
        args, kwargs = as_arguments(batch)
        return self.model(*args, **kwargs)

    def _difference(self, spec: WeightSpec) -> str:
        base, own = spec.config.get("base"), self.spec.config.get("base")
        if base != own:
            return another_base(base or {}, own or {})
        theirs = {slot.name: slot for slot in spec}
        for slot in self.spec:
            if slot.name not in theirs:
                return f"the target takes slot {slot.name!r}, which the weights do not have"
            if theirs[slot.name] != slot:
                return (
                    f"slot {slot.name!r} is {slot.shape} in the target and "
                    f"{theirs[slot.name].shape} in the weights"
                )
        return "the weights have another spec than the target (other slots or settings)"


def samples_of(weights: Weights, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Number of samples N of a call: the longest first axis, at least one for each network."""
    tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.dim()]
    return max((t.shape[0] for t in tensors), default=len(weights))


def as_arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A batch as positional and keyword arguments."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, (tuple, list)):
        return tuple(batch), {}
    return (batch,), {}
