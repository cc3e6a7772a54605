"""Gradients of a stack of any network: `torch.func.vmap` over `functional_call`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from hypergen.zoo.ensemble.problem import Problem
from hypergen.zoo.ensemble.stack import StackedWeights


class VmappedGradients:
    """Gradients of `M` networks by automatic differentiation of one vectorised call.

    Batch-norm statistics are slots of the stack as well; training updates them in place.

    Args:
        module: One network, in training mode.
        weights: The weights, read at every call.
        gradient: `[weights.trained]`, written by every call.
        problem: Gives the loss.
    """

    def __init__(
        self, module: nn.Module, weights: StackedWeights, gradient: Tensor, problem: Problem
    ) -> None:
        self._gradients = weights.split(gradient, weights.trained_slots)
        names = self._gradients
        self._parameters = {name: weights.views[name] for name in names}
        self._buffers = {name: weights.views[name] for name in weights.buffers}

        def loss(
            parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, targets: Tensor
        ) -> Tensor:
            return problem.loss(functional_call(module, {**parameters, **buffers}, (x,)), targets)

        self._call = vmap(grad(loss), randomness="error")

    def __call__(self, x: Tensor, targets: Tensor) -> None:
        """Writes the gradient of every network's loss.

        Args:
            x: `[M, B, *shape]`.
            targets: `[M, B, …]`.
        """
        gradients = self._call(self._parameters, self._buffers, x, targets)
        for name, buffer in self._gradients.items():
            buffer.copy_(gradients[name])
