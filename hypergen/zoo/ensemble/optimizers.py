"""AdamW and SGD for a stack: one vector, few passes, another learning rate for each member."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen.zoo.ensemble.member import Member
from hypergen.zoo.ensemble.stack import StackedWeights

# What `adamw(fused=True)` comes to; on the CPU its checks take longer than small stacks.
_KERNEL: Any = getattr(torch, "_fused_adamw_", None)


class StackedOptimizer(ABC):
    """Trains all members at once, each at its own learning rate.

    The rate of member i is taken out of the update: q = p / lrᵢ is trained with the rate of the
    schedule alone, from the gradient with respect to p, and p = lrᵢ · q. Neither AdamW nor SGD
    looks at the size of p otherwise, so that the steps are those of lrᵢ, and the update itself
    is one kernel over one vector without a rate for each entry.

    Args:
        weights: What is trained; read at the start, written by each step.
        gradient: `[weights.trained]`, filled by others before each step.
        members: Learning rates and weight decays.
    """

    def __init__(
        self, weights: StackedWeights, gradient: Tensor, members: Sequence[Member]
    ) -> None:
        device = gradient.device
        self.gradient = gradient
        self.scaled = torch.empty_like(gradient)
        scaled = weights.split(self.scaled, weights.trained_slots)
        rates = torch.tensor([m.lr for m in members], device=device)
        decays = torch.tensor([m.weight_decay for m in members], device=device)
        self.rates_times_decays = rates * decays
        self.has_decay = any(m.weight_decay for m in members)
        self._pairs = []
        for slot in weights.trained_slots:
            rate = rates.view(-1, *[1] * len(slot.shape))
            value = weights.views[slot.name]
            torch.div(value, rate, out=scaled[slot.name])
            self._pairs.append((scaled[slot.name], rate, value))
        self.matrices = [scaled[s.name] for s in weights.trained_slots if s.role == "weight"]
        gradients = weights.split(gradient, weights.trained_slots)
        self.matrix_gradients = [
            gradients[s.name] for s in weights.trained_slots if s.role == "weight"
        ]

    @abstractmethod
    def update(self, factor: float) -> None:
        """Moves `scaled` by one step at `factor` times the peak rates."""

    def step(self, factor: float) -> None:
        """Does one step.

        Args:
            factor: Share of the peak learning rates.
        """
        self.update(factor)
        for scaled, rate, value in self._pairs:
            torch.mul(scaled, rate, out=value)


class StackedAdamW(StackedOptimizer):
    """Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101.

    Adam does not change when the gradient is scaled, so the gradient of p serves for q, and the
    small ε keeps its meaning.
    """

    betas = (0.9, 0.999)
    eps = 1e-8

    def __init__(
        self, weights: StackedWeights, gradient: Tensor, members: Sequence[Member]
    ) -> None:
        super().__init__(weights, gradient, members)
        self._mean, self._square = torch.zeros_like(gradient), torch.zeros_like(gradient)
        self._step = torch.zeros((), device=gradient.device)

    def update(self, factor: float) -> None:
        """One fused step, after the decay of the matrices."""
        if self.has_decay:
            keep = 1 - factor * self.rates_times_decays
            for matrix in self.matrices:
                matrix.mul_(keep.view(-1, *[1] * (matrix.dim() - 1)))
        arguments: dict[str, Any] = {
            "amsgrad": False,
            "beta1": self.betas[0],
            "beta2": self.betas[1],
            "lr": factor,
            "weight_decay": 0.0,
            "eps": self.eps,
            "maximize": False,
        }
        if _KERNEL is None:
            arguments["fused"] = True
        else:
            self._step += 1
        (_KERNEL or adamw)(
            [self.scaled],
            [self.gradient],
            [self._mean],
            [self._square],
            [],
            [self._step],
            **arguments,
        )


class StackedSGD(StackedOptimizer):
    """Stochastic gradient descent with momentum 0.9, as `torch.optim.SGD`."""

    momentum = 0.9

    def __init__(
        self, weights: StackedWeights, gradient: Tensor, members: Sequence[Member]
    ) -> None:
        super().__init__(weights, gradient, members)
        self._velocity = torch.zeros_like(gradient)

    def update(self, factor: float) -> None:
        """Velocity, then position."""
        if self.has_decay:  # decay · p = decay · lr · q
            for matrix, gradient in zip(self.matrices, self.matrix_gradients, strict=True):
                decay = self.rates_times_decays.view(-1, *[1] * (matrix.dim() - 1))
                gradient.addcmul_(matrix, decay)
        self._velocity.mul_(self.momentum).add_(self.gradient)
        self.scaled.sub_(self._velocity, alpha=factor)


OPTIMIZERS: dict[str, type[StackedOptimizer]] = {"adamw": StackedAdamW, "sgd": StackedSGD}


def optimizer_class(name: str) -> type[StackedOptimizer]:
    """Returns the class of an optimiser.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in OPTIMIZERS:
        raise UsageError(f"no optimizer {name!r}.{did_you_mean(name, OPTIMIZERS)}")
    return OPTIMIZERS[name]
