"""Any network with any of its parameters generated: vmap over functional_call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from hypergen._utils.errors import WeightsError
from hypergen.specs import DeltaSpec, FullSpec, Weights, WeightSpec, cache_argument
from hypergen.targets.base import Target
from hypergen.targets.mlp import is_mlp, run_mlp


class FunctionalTarget(Target):
    """Runs `B` networks that differ in generated parameters, whole (`FullSpec`) or as differences.

    Buffers of the spec (statistics of batch norm) are used as given: the network stays in
    evaluation mode.

    `torch.func.vmap` over `functional_call` turns each layer into one batched product. Modules that
    vmap cannot trace (in-place writes into unbatched buffers, custom autograd functions, control
    flow that reads numbers) run network after network instead, with equal results: `vectorized`
    turns False at the first call then. Plain MLPs (`nn.Sequential` of linear and elementwise ones)
    need no tracing: they are run as batched products directly.

    Args:
        model: The network that provides the architecture and the parameters not generated.
        spec: What is generated.
        chunk_size: Networks run at a time, to bound memory; all when not given.

    Raises:
        WeightsError: The spec was made for another base, or names a parameter it does not have.
    """

    def __init__(self, model: nn.Module, spec: WeightSpec, chunk_size: int | None = None) -> None:
        super().__init__(model, spec)
        self.chunk_size = chunk_size
        self.vectorized = True
        self._is_delta = isinstance(spec, DeltaSpec)
        self._called = self._network()
        check_parameters(self._called, spec)
        self._is_mlp = chunk_size is None and is_mlp(self._called)

    def _network(self) -> nn.Module:
        """The module whose parameters the slots name."""
        return self.model

    def parameters_of(self, weights: Weights) -> dict[str, Tensor]:
        """Parameter name → `[B, *shape]`, with ties under every name and differences added."""
        out: dict[str, Tensor] = {}
        for slot in self.spec:
            value = weights[slot.name]
            if self._is_delta:
                value = self._called.get_parameter(slot.parameter) + value
            for name in (slot.parameter, *slot.ties):
                out[name] = value
        return out

    def call(self, weights: Weights, *args: Any, **kwargs: Any) -> Any:
        """Runs all networks in one vmapped call, or one after the other."""
        networks = len(weights)
        parameters = self.parameters_of(weights)
        if self._is_mlp and not kwargs and len(args) == 1 and args[0].dim() == 2:
            assert isinstance(self._called, nn.Sequential)
            return run_mlp(self._called, parameters, args[0].unflatten(0, (networks, -1))).flatten(
                0, 1
            )

        def run(parameters: dict[str, Tensor], a: Any, k: Any) -> Any:
            return functional_call(self._called, parameters, a, k, tie_weights=False)

        return self._mapped(run, parameters, args, kwargs)

    @contextmanager
    def decoder(self, weights: Weights, samples: int) -> Iterator[Any]:
        """See `Target.decoder`: a view of the model whose forward runs all networks."""
        from hypergen.targets.decoding import refuse_encoder, with_step

        refuse_encoder(self.model, type(self).__name__)
        yield with_step(self.model, self._step(weights))

    def _step(self, weights: Weights) -> Callable[..., Any]:
        """What runs one step of decoding."""
        from hypergen.targets.decoding import stacked_step

        parameters = self.parameters_of(weights)

        def run(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
            return self._mapped(function, parameters, *arguments)

        def call(parameters: dict[str, Tensor], kwargs: dict[str, Any]) -> Any:
            return functional_call(self._called, parameters, (), kwargs, tie_weights=False)

        return functools.partial(stacked_step, run, cache_argument(self.model), call)

    def _mapped(
        self, function: Callable[..., Any], parameters: dict[str, Tensor], *arguments: Any
    ) -> Any:
        """Calls a function for each network, in one vmapped call or one after the other.

        Args:
            function: Takes one network's parameters and arguments.
            parameters: Parameter name → `[B, *shape]`.
            *arguments: Trees of tensors `[N, …]`, in blocks by network, and of other things.
        """
        networks = len(next(iter(parameters.values())))

        def split(value: Any) -> Any:
            return value.unflatten(0, (networks, -1)) if _is_batched(value) else value

        structure: list[Any] = []

        def run(parameters: dict[str, Tensor], *own: Any) -> tuple[Tensor, ...]:
            leaves, tree = tree_flatten(function(parameters, *own))
            structure[:] = tree, [_constant(leaf) for leaf in leaves]
            return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

        arguments = tree_map(split, arguments)
        outs: tuple[Tensor, ...] | None = None
        if networks > 1 and self.vectorized:
            axes = tree_map(lambda value: 0 if _is_batched(value) else None, arguments)
            batched = vmap(run, (0, *axes), chunk_size=self.chunk_size, randomness="error")
            try:
                outs = batched(parameters, *arguments)
            except RuntimeError as error:
                if "vmap" not in str(error) and "functorch" not in str(error):
                    raise
                self.vectorized = False
        if outs is None:
            each = [run(*_pick(i, (parameters, *arguments))) for i in range(networks)]
            outs = tuple(torch.stack(values) for values in zip(*each, strict=True))
        # `[B, N / B, …]` → `[N, …]`; a number of each network stays `[B]`.
        tensors = iter(t.flatten(0, 1) if t.dim() > 1 else t for t in outs)
        tree, leaves = structure
        return tree_unflatten([next(tensors) if x is _TENSOR else x for x in leaves], tree)


_TENSOR = object()


def _constant(leaf: Any) -> Any:
    """What an output's leaf is in the joined output: caches and the like are of one network."""
    if isinstance(leaf, Tensor):
        return _TENSOR
    return leaf if isinstance(leaf, (str, int, float)) else None


def _pick(i: int, tree: Any) -> Any:
    """Arguments of one network."""
    return tree_map(lambda value: value[i] if _is_batched(value) else value, tree)


def check_parameters(model: nn.Module, spec: WeightSpec) -> None:
    """Checks that a model has every parameter (or buffer, if replaced whole) that the slots fill.

    `functional_call` ignores names that it does not know, so this must come first.

    Raises:
        WeightsError: A parameter is missing or has another shape; names the slot.
    """
    parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    if isinstance(spec, FullSpec):
        parameters.update(model.named_buffers(remove_duplicate=False))
    for slot in spec:
        for name in (slot.parameter, *slot.ties):
            if name not in parameters:
                raise WeightsError(
                    f"the model has no parameter {name!r}, which slot {slot.name!r} fills"
                )
            if tuple(parameters[name].shape) != slot.shape:
                raise WeightsError(
                    f"slot {slot.name!r} has shape {slot.shape}, the model's parameter {name!r} "
                    f"{tuple(parameters[name].shape)}"
                )


def _is_batched(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0
