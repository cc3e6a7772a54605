"""Which value each tensor of a running forward holds, and the calls that made it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hypergen.conditions.graph.records import Call, Record, Source

# Constants up to this many numbers are computed, so that control flow that reads them can run.
CONSTANT_LIMIT = 1 << 20


def blank(shape: Sequence[int], dtype: torch.dtype, stride: Sequence[int] | None = None) -> Tensor:
    """A tensor without numbers, made behind the back of the modes that watch."""
    with torch._C._DisableTorchDispatch():
        if stride is None:
            return torch.empty(shape, dtype=dtype, device="meta")
        return torch.empty_strided(shape, stride, dtype=dtype, device="meta")


def parameter_names(module: nn.Module) -> dict[int, list[str]]:
    """Identity of each parameter → all its names, in the order of the module."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def tensors_in(value: Any, depth: int = 6) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists, dictionaries and objects, in order."""
    if isinstance(value, Tensor):
        yield value
    elif depth == 0 or value is None or isinstance(value, (str, bytes, int, float, nn.Module)):
        return
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item, depth - 1)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item, depth - 1)
    elif hasattr(value, "__dict__"):
        yield from tensors_in(vars(value), depth - 1)


class Recorder:
    """Values, aliases and stand-ins of the tensors of one run.

    A tensor is *data* if an input or a parameter reaches it; everything else is a constant.
    Parameters and floating-point numbers are stood in for by tensors on the meta device, so that
    no memory is read; constants, and what is made of integer inputs, are computed where they are
    small.

    Args:
        module: The network.
    """

    def __init__(self, module: nn.Module) -> None:
        self.record = Record()
        self.parameters = parameter_names(module)
        buffers = list(module.buffers())
        self._buffers = {id(buffer): buffer for buffer in buffers}
        self._own: dict[int, Tensor] = {}  # copies of the module's integer buffers
        self._values: dict[int, int] = {}
        self._metas: dict[int, Tensor] = {}
        self._roots: dict[int, int] = {}
        self._views: dict[int, list[int]] = {}
        self._tainted: set[int] = set()  # computed constants that data was written into
        # An id is unique only while its tensor lives.
        self._alive: dict[int, Tensor] = {id(buffer): buffer for buffer in buffers}
        self.path, self.scope = "", 0
        self.doing = ""
        self.silent = 0

    def input(self, name: str, tensor: Tensor) -> Tensor:
        """Makes a tensor an input: integers by copy, everything else without its numbers."""
        if tensor.is_floating_point() or tensor.is_complex():
            ready = blank(tensor.shape, tensor.dtype)
        elif tensor.device.type == "meta":
            ready = torch.zeros(tensor.shape, dtype=tensor.dtype)
        else:
            ready = tensor.detach().to("cpu", copy=True)
        self._set(ready, self._source(Source("input", name, tuple(tensor.shape))))
        return ready

    def value(self, tensor: Tensor) -> int | None:
        """The value that a tensor holds; None for a constant."""
        found = self._values.get(id(tensor))
        if found is None and id(tensor) in self.parameters:
            name = self.parameters[id(tensor)][0]
            found = self._source(Source("parameter", name, tuple(tensor.shape)))
            self._set(tensor, found)
        return found

    def is_concrete(self, tensor: Tensor) -> bool:
        """Whether the numbers of a tensor are there and may be read."""
        key = id(tensor)
        if tensor.device.type != "cpu" or key in self.parameters or key in self._tainted:
            return False
        if key in self._buffers and tensor.is_floating_point():
            return False
        if key in self._values and (tensor.is_floating_point() or tensor.is_complex()):
            return False
        return type(tensor) is Tensor or key in self._buffers

    def concrete(self, tensor: Tensor) -> Tensor:
        """A concrete tensor that may be written to: the module's own buffers are copied."""
        if id(tensor) not in self._buffers:
            return tensor
        if id(tensor) not in self._own:
            self._own[id(tensor)] = tensor.detach().clone()
        return self._own[id(tensor)]

    def meta(self, tensor: Tensor) -> Tensor:
        """The tensor's stand-in, which has its shape and no numbers."""
        if tensor.device.type == "meta" and type(tensor) in (Tensor, nn.Parameter):
            return tensor
        found = self._metas.get(id(tensor))
        if found is None:
            found = blank(tensor.shape, tensor.dtype, tensor.stride())
            self._metas[id(tensor)] = found
            self._alive[id(tensor)] = tensor
        return found

    def call(
        self,
        op: str,
        inputs: Sequence[tuple[str, Any]],
        outputs: Sequence[Tensor],
        **rest: Any,
    ) -> None:
        """Writes a call down, unless all it read is constant.

        Args:
            op: Name of the operation.
            inputs: (argument, tensor); what is not a tensor is left out.
            outputs: The tensors that it made.
            **rest: Further fields of `Call`.
        """
        read = [(slot, self.value(t)) for slot, t in inputs if isinstance(t, Tensor)]
        known = [(slot, value) for slot, value in read if value is not None]
        if not known or not outputs:
            return
        made = []
        for tensor in outputs:
            made.append(self.record.value())
            self._set(tensor, made[-1])
        shape = tuple(outputs[0].shape)
        self.record.calls.append(
            Call(op, known, made, shape, module=self.path, scope=self.scope, **rest)
        )

    def alias(self, tensor: Tensor, of: Tensor) -> None:
        """Notes that a tensor shares memory with another one."""
        root = self._roots.get(id(of), id(of))
        self._roots[id(tensor)] = root
        self._views.setdefault(root, []).append(id(tensor))
        self._alive.update({id(tensor): tensor, id(of): of})

    def write(self, op: str, target: Tensor, inputs: Sequence[tuple[str, Any]]) -> None:
        """Writes down a call that changed a tensor, and with it all that shares its memory."""
        before = len(self.record.calls)
        whole = id(target) not in self._roots
        old = [] if whole and op == "copy" else [("self", self._root(target))]
        read = [(slot, t) for slot, t in inputs if t is not target]
        self.call(op, [*old, *read], [target], whole=whole)
        if len(self.record.calls) == before:
            return
        value = self._values[id(target)]
        root = self._roots.get(id(target), id(target))
        keys = (root, *self._views.get(root, ()))
        self._values.update(dict.fromkeys(keys, value))
        if not all(self.is_concrete(t) for _, t in inputs if isinstance(t, Tensor)):
            self._tainted.update(keys)

    def _root(self, tensor: Tensor) -> Tensor:
        return self._alive.get(self._roots.get(id(tensor), id(tensor)), tensor)

    def _source(self, source: Source) -> int:
        value = self.record.value()
        self.record.sources[value] = source
        return value

    def _set(self, tensor: Tensor, value: int) -> None:
        self._values[id(tensor)] = value
        self._alive[id(tensor)] = tensor
