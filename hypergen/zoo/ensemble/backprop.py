"""Gradients of a stack of plain MLPs, forward and backward written out as batched products."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hypergen.zoo.ensemble.problem import Problem
from hypergen.zoo.ensemble.stack import StackedWeights
from hypergen.zoo.networks.siren import Sine

_aten = torch.ops.aten


class _Activation(NamedTuple):
    """Forward and backward of an elementwise function, into given buffers.

    `forward(z, h)` writes h; `backward(d, z, h)` turns the gradient of h into that of z in place.
    `in_place` functions get the same buffer as z and h and need the output alone.
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor, Tensor], object]
    in_place: bool = False


def _activation(module: nn.Module) -> _Activation | None:
    """The written-out form of an activation, if there is one."""
    if type(module) is nn.ReLU:
        return _Activation(
            lambda z, h: z.relu_(),
            lambda d, z, h: _aten.threshold_backward.grad_input(d, h, 0, grad_input=d),
            in_place=True,
        )
    if type(module) is nn.Tanh:
        return _Activation(
            lambda z, h: z.tanh_(),
            lambda d, z, h: _aten.tanh_backward.grad_input(d, h, grad_input=d),
            in_place=True,
        )
    if type(module) is nn.GELU and module.approximate == "none":
        return _Activation(
            lambda z, h: _aten.gelu.out(z, out=h),
            lambda d, z, h: _aten.gelu_backward.grad_input(d, z, grad_input=d),
        )
    if type(module) is nn.SiLU:
        return _Activation(
            lambda z, h: _aten.silu.out(z, out=h),
            lambda d, z, h: _aten.silu_backward.grad_input(d, z, grad_input=d),
        )
    if type(module) is Sine:
        omega = module.omega
        return _Activation(
            lambda z, h: torch.sin(z.mul_(omega), out=h),
            lambda d, z, h: d.mul_(z.cos_()).mul_(omega),
        )
    return None


class _Layer(NamedTuple):
    """One linear layer and the activation after it (None after the last)."""

    weight: Tensor  # [M, out, in]
    weight_t: Tensor  # [M, in, out], the same
    bias: Tensor | None  # [M, out, 1]
    weight_gradient: Tensor
    bias_gradient: Tensor | None  # [M · out]
    activation: _Activation | None
    z: Tensor  # [M, out, B], before the activation
    h: Tensor  # [M, out, B], after it
    h_t: Tensor  # [M, B, out], the same
    d: Tensor  # [M, out, B], gradient
    d_rows: Tensor  # [M · out, B], the same


class MLPGradients:
    """Gradients of `M` MLPs, without a graph.

    Activations are kept as `[M, units, B]`: weights multiply from the left, so that every product
    reads its operands and writes its result (gradients of weights included) in the layout in
    which they are stored. All buffers are allocated once.

    Args:
        module: `nn.Sequential` of linear layers, and activations between them.
        weights: The weights, read at every call.
        gradient: `[weights.trained]`, written by every call.
        problem: Gives the gradient with respect to the outputs.
        batch_size: Samples of one network.
    """

    @staticmethod
    def fits(module: nn.Module, problem: Problem) -> bool:
        """Whether module and problem have a written-out gradient."""
        if not isinstance(module, nn.Sequential) or len(module) % 2 == 0:
            return False
        layers = list(module)
        linear = all(type(layer) is nn.Linear for layer in layers[::2])
        if not linear or any(_activation(layer) is None for layer in layers[1::2]):
            return False
        writes = type(problem).output_gradient is not Problem.output_gradient
        return writes

    def __init__(
        self,
        module: nn.Sequential,
        weights: StackedWeights,
        gradient: Tensor,
        problem: Problem,
        batch_size: int,
    ) -> None:
        self.problem = problem
        gradients = weights.split(gradient, weights.trained_slots)
        self._layers: list[_Layer] = []
        for i in range(0, len(module), 2):
            weight, bias = weights.views[f"{i}.weight"], weights.views.get(f"{i}.bias")
            activation = _activation(module[i + 1]) if i + 1 < len(module) else None
            shape = (*weight.shape[:2], batch_size)
            z, d = (
                torch.empty(shape, device=weight.device),
                torch.empty(shape, device=weight.device),
            )
            separate = activation is not None and not activation.in_place
            h = torch.empty_like(z) if separate else z
            bias_gradient = gradients.get(f"{i}.bias")
            self._layers.append(
                _Layer(
                    weight,
                    weight.mT,
                    None if bias is None else bias[..., None],
                    gradients[f"{i}.weight"],
                    None if bias_gradient is None else bias_gradient.view(-1),
                    activation,
                    z,
                    h,
                    h.mT,
                    d,
                    d.flatten(0, 1),
                )
            )
        self._ones = torch.ones(batch_size, device=gradient.device)

    def __call__(self, x: Tensor, targets: Tensor) -> None:
        """Writes the gradient of every network's loss.

        Args:
            x: `[M, B, inputs]`.
            targets: `[M, B, …]`.
        """
        below = x.mT
        for layer in self._layers:
            if layer.bias is None:
                torch.bmm(layer.weight, below, out=layer.z)
            else:
                torch.baddbmm(layer.bias, layer.weight, below, out=layer.z)
            if layer.activation is not None:
                layer.activation.forward(layer.z, layer.h)
            below = layer.h
        last = self._layers[-1]
        self.problem.output_gradient(last.z, targets, last.d)
        for i in reversed(range(len(self._layers))):
            layer = self._layers[i]
            if layer.activation is not None:
                layer.activation.backward(layer.d, layer.z, layer.h)
            torch.bmm(layer.d, self._layers[i - 1].h_t if i else x, out=layer.weight_gradient)
            if layer.bias_gradient is not None:
                # A product with ones is several times as fast as a sum over a short last axis.
                torch.mv(layer.d_rows, self._ones, out=layer.bias_gradient)
            if i:  # the data need no gradient
                torch.bmm(layer.weight_t, layer.d, out=self._layers[i - 1].d)
