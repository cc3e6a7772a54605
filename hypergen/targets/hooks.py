"""Hooks installed once, silent until a call sets the weights."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from hypergen._utils.errors import WeightsError

State = TypeVar("State")


class HookedModules(Generic[State]):
    """Forward hooks on modules of a frozen model that act only inside `active`.

    A deep copy of the owner together with its model gets hooks of its own.

    Args:
        modules: Path → module.
        apply: Called with (state, path, input, output) while active; returns the new output.
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        apply: Callable[[State, str, Tensor, Tensor], Tensor],
    ) -> None:
        self._state: State | None = None
        self._samples = 0
        self._modules, self._apply = modules, apply
        self._handles = [self._install(path, module) for path, module in modules.items()]
        # Not __del__: hooks, handles and this object die together in one cycle.
        self._cleanup = weakref.finalize(self, _remove, self._handles)

    def _install(self, path: str, module: nn.Module) -> Any:
        # The model must not keep this object alive, nor this object hide that it is gone.
        reference = weakref.ref(self)

        def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            owner = reference()
            if owner is None or owner._state is None:
                return None
            return owner._apply(owner._state, path, *owner._spread(path, args[0], output))

        return module.register_forward_hook(hook)

    def _spread(self, path: str, x: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Repeats what the model computes once for all samples, e.g. embeddings of positions."""
        n = self._samples
        if x.shape[0] == 1 < n:
            return x.expand(n, *x.shape[1:]), output.expand(n, *output.shape[1:])
        if x.shape[0] % n:
            raise WeightsError(
                f"module {path!r} gets {x.shape[0]} rows for {n} samples: it cannot be told which "
                "network they belong to"
            )
        return x, output

    @contextmanager
    def active(self, state: State, samples: int) -> Iterator[None]:
        """Sets the weights for the calls inside; restores what was before, also after an error.

        Args:
            state: What `apply` is called with.
            samples: Number of samples N of the call; modules see N rows, a multiple, or 1.
        """
        before = self._state, self._samples
        self._state, self._samples = state, samples
        try:
            yield
        finally:
            self._state, self._samples = before

    def remove(self) -> None:
        """Takes the hooks off the model."""
        self._cleanup()

    def __deepcopy__(self, memo: dict[int, Any]) -> HookedModules[State]:
        modules = copy.deepcopy(self._modules, memo)
        for handle, module in zip(self._handles, modules.values(), strict=True):
            # Copied with the module, but it obeys the original.
            module._forward_hooks.pop(handle.id, None)
        new: HookedModules[State] = HookedModules.__new__(type(self))
        memo[id(self)] = new
        HookedModules.__init__(new, modules, copy.deepcopy(self._apply, memo))
        return new


def _remove(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()


def find_modules(model: nn.Module, paths: Iterable[str]) -> dict[str, nn.Module]:
    """Path → module.

    Raises:
        WeightsError: The model has no module of that path.
    """
    modules = dict(model.named_modules())
    for path in paths:
        if path not in modules:
            raise WeightsError(f"the model has no module {path!r}, which the weights adapt")
    return {path: modules[path] for path in paths}
