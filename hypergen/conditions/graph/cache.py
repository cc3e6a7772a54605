"""A cache of graphs by what decides a graph: the architecture, not the values."""

from __future__ import annotations

import hashlib
import threading
import types
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hypergen.conditions.graph.graph import ModuleGraph
from hypergen.conditions.graph.inputs import Example

# State of modules that does not steer their forward.
_SKIP = frozenset(
    [
        "_parameters",
        "_buffers",
        "_modules",
        "training",
        "_flat_weights",
        "_flat_weight_refs",
        "_is_hf_initialized",
        "name_or_path",
        *(name for name in vars(nn.Module()) if "hook" in name),
    ]
)


@dataclass(frozen=True)
class Key:
    """What decides a graph.

    Attributes:
        digest: SHA-256 of it.
        alive: Classes and functions that the digest knows by identity, which is theirs only as
            long as they live.
    """

    digest: str
    alive: tuple[Any, ...]


class _Cache:
    """The most recent graphs of this process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._graphs: OrderedDict[str, tuple[ModuleGraph, tuple[Any, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> ModuleGraph | None:
        with self._lock:
            if key.digest not in self._graphs:
                return None
            self._graphs.move_to_end(key.digest)
            return self._graphs[key.digest][0]

    def put(self, key: Key, graph: ModuleGraph) -> None:
        with self._lock:
            self._graphs[key.digest] = graph, key.alive
            self._graphs.move_to_end(key.digest)
            while len(self._graphs) > self._limit:
                self._graphs.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._graphs.clear()


CACHE = _Cache(256)


class _UnknownError(Exception):
    """Something that may decide the graph cannot be compared."""


def architecture_key(module: nn.Module, example: Example | None, method: str) -> Key | None:
    """What decides a graph, in a form that can be compared; None if something of it cannot be.

    That is every module's class, name and attributes, names, shapes, types and ties of parameters
    and buffers, and the shapes of the example (of whole numbers also their values). A module with
    hooks, or with attributes that cannot be compared, has no key, and is traced each time.
    """
    writer = _Writer()
    seen: dict[int, int] = {}
    try:
        for name, child in module.named_modules(remove_duplicate=False):
            if child._forward_hooks or child._forward_pre_hooks:
                return None
            if id(child) in seen:
                writer.text(f"{name}={seen[id(child)]}")
                continue
            seen[id(child)] = len(seen)
            writer.text(name)
            writer.identity(type(child))
            for own in (child._parameters, child._buffers):
                for key, tensor in own.items():
                    place = seen.setdefault(id(tensor), len(seen)) if tensor is not None else -1
                    writer.text(f"{key}{place}{_tensor(tensor)}")
            for key, value in vars(child).items():
                if key not in _SKIP:
                    writer.text(key)
                    writer.value(value)
        if example is not None:
            writer.value([list(example.args), example.kwargs])
    except _UnknownError:
        return None
    writer.text(method)
    return Key(writer.digest.hexdigest(), tuple(writer.alive.values()))


def _tensor(tensor: Tensor | None) -> str:
    return "" if tensor is None else f"{tuple(tensor.shape)}{tensor.dtype}"


class _Writer:
    """Hashes values that can be compared between objects."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.alive: dict[int, Any] = {}
        self._written: dict[int, int] = {}

    def text(self, text: str) -> None:
        self.digest.update(f"{len(text)}:{text};".encode())

    def identity(self, value: Any) -> None:
        self.alive[id(value)] = value
        self.text(f"#{id(value)}")

    def value(self, value: Any, depth: int = 0) -> None:
        """Adds a value.

        Raises:
            _UnknownError: It is, or holds, something that cannot be compared.
        """
        if value is None or isinstance(value, (str, int, float, complex, bool, bytes)):
            self.text(f"{type(value).__name__}{value!r}")
        elif isinstance(value, (torch.dtype, torch.Size, torch.device)):
            self.text(f"{value}")
        elif isinstance(value, Tensor):
            # Whole numbers may steer the forward.
            numbers = "" if value.is_floating_point() or value.is_meta else f"{value.tolist()}"
            self.text(f"{_tensor(value)}{numbers}")
        elif isinstance(value, nn.Module):
            self.identity(type(value))
        elif isinstance(value, (type, types.BuiltinFunctionType, types.FunctionType)):
            if getattr(value, "__closure__", None):
                raise _UnknownError
            self.identity(value)
        elif depth > 8:
            raise _UnknownError
        elif isinstance(value, Mapping):
            self.text(f"{{{len(value)}")
            for key, item in value.items():
                self.value(key, depth + 1)
                self.value(item, depth + 1)
        elif isinstance(value, (list, tuple)):
            self.text(f"[{len(value)}")
            for item in value:
                self.value(item, depth + 1)
        elif isinstance(value, (set, frozenset)):
            if not all(isinstance(item, (str, int)) for item in value):
                raise _UnknownError
            self.text(f"{sorted(map(repr, value))}")
        elif type(value).__module__ != "builtins" and hasattr(value, "__dict__"):
            self.identity(type(value))
            # Every module of a model may hold the one config: written once, then by its number.
            if id(value) in self._written:
                self.text(f"={self._written[id(value)]}")
                return
            self._written[id(value)] = len(self._written)
            self.value(vars(value), depth + 1)
        else:
            raise _UnknownError
