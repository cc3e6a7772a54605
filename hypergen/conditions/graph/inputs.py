"""What a network is called with when it is traced: given, given as shapes, or guessed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError

Shape = tuple[int, ...]
BATCH = 2  # of guesses: batch norm in training refuses one
_WHOLE = ("ids", "id", "index", "indices", "labels", "tokens", "positions", "token_type")


@dataclass(frozen=True)
class Example:
    """Arguments of a forward.

    Attributes:
        args: By position.
        kwargs: By name.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def map(
        self, change: Callable[[str, Tensor], Tensor]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with every tensor replaced by `change(name, tensor)`."""

        def walk(name: str, value: Any) -> Any:
            if isinstance(value, Tensor):
                return change(name, value)
            if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
                return type(value)(walk(f"{name}.{i}", item) for i, item in enumerate(value))
            if isinstance(value, dict):
                return {key: walk(f"{name}.{key}", item) for key, item in value.items()}
            return value

        args = tuple(walk(str(i), item) for i, item in enumerate(self.args))
        return args, {key: walk(key, item) for key, item in self.kwargs.items()}

    def describe(self) -> str:
        """Names, shapes and dtypes, such as `input_ids=[2, 8] int64`."""
        parts: list[str] = []

        def note(name: str, tensor: Tensor) -> Tensor:
            label = "" if name.isdigit() else f"{name}="
            dtype = str(tensor.dtype).removeprefix("torch.")
            parts.append(f"{label}{list(tensor.shape)} {dtype}")
            return tensor

        self.map(note)
        return ", ".join(parts) or "no arguments"


def as_example(example: Any, module: nn.Module) -> Example:
    """Makes an `Example` of what a caller gave.

    Args:
        example: A tensor; a shape; a tuple or list of tensors and shapes, one for each positional
            argument; or a dictionary of them by name (other values go through unchanged). A
            shape becomes a tensor of whole numbers where the argument's name says so
            (`input_ids`), else of the module's floating-point type.
        module: The network.

    Raises:
        ConditionError: It is none of these.
    """
    if isinstance(example, Example):
        return example
    dtype = floating_type(module)
    if isinstance(example, Tensor):
        return Example((example,))
    if isinstance(example, Mapping):
        return Example((), {k: _argument(k, v, dtype) for k, v in example.items()})
    if _is_shape(example):
        return Example((_argument(_first_name(module), example, dtype),))
    if isinstance(example, (tuple, list)):
        names = [*_names(module), *[""] * len(example)]
        return Example(tuple(_argument(n, v, dtype) for n, v in zip(names, example, strict=False)))
    raise ConditionError(
        f"an example input is a tensor, a shape such as (1, 3, 224, 224), a tuple of those or a "
        f"dictionary of them by argument, not a {type(example).__name__}"
    )


def parse_inputs(words: Sequence[str], module: nn.Module) -> Example | None:
    """Reads inputs written as `[NAME=]2x3x224x224[:dtype]`, one for each argument.

    Raises:
        ConditionError: A word is written otherwise.
    """
    if not words:
        return None
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    names = iter([*_names(module), *[""] * len(words)])
    for word in words:
        found = re.fullmatch(r"(?:([A-Za-z_]\w*)=)?(\d+(?:[x,]\d+)*)(?::(\w+))?", word.strip())
        if not found:
            raise ConditionError(
                f"--input {word}: write [NAME=]SIZES[:DTYPE], such as 1x3x224x224 or "
                "input_ids=1x8:int64"
            )
        shape = tuple(int(n) for n in re.split("[x,]", found[2]))
        dtype = getattr(torch, found[3], None) if found[3] else None
        if found[3] and not isinstance(dtype, torch.dtype):
            raise ConditionError(f"--input {word}: {found[3]!r} is not a dtype of torch")
        name = found[1] or next(names)
        tensor = make_tensor(shape, dtype or _type_of(name, floating_type(module)))
        if found[1]:
            kwargs[name] = tensor
        else:
            args.append(tensor)
    return Example(tuple(args), kwargs)


def make_tensor(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor to trace with: small whole numbers, or no numbers at all."""
    if dtype.is_floating_point or dtype.is_complex:
        return torch.empty(tuple(shape), dtype=dtype, device="meta")
    return torch.ones(tuple(shape), dtype=dtype)


def floating_type(module: nn.Module) -> torch.dtype:
    """The type of the first floating-point parameter; torch's default without any."""
    floating = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(floating, torch.get_default_dtype())


def forward_arguments(module: nn.Module) -> dict[str, inspect.Parameter]:
    """Arguments of the forward that have names; of what it wraps, if its own have none."""
    for m in unwrapped(module):
        named = inspect.signature(m.forward).parameters
        fixed = {k: p for k, p in named.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        if fixed:
            return fixed
    return {}


def required_arguments(module: nn.Module) -> list[str]:
    """Arguments of the forward without a default."""
    named = forward_arguments(module)
    return [name for name, p in named.items() if p.default is inspect.Parameter.empty]


def unwrapped(module: nn.Module) -> Iterator[nn.Module]:
    """The module, then what it wraps, as PEFT and DataParallel do."""
    yield module
    for _ in range(4):
        if any(
            p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            for p in inspect.signature(module.forward).parameters.values()
        ) and not hasattr(module, "peft_config"):
            return
        inner = (getattr(module, name, None) for name in ("base_model", "model", "module"))
        found = next((m for m in inner if isinstance(m, nn.Module) and m is not module), None)
        if found is None:
            return
        module = found
        yield module


def _names(module: nn.Module) -> list[str]:
    return list(forward_arguments(module))


def _first_name(module: nn.Module) -> str:
    names = _names(module)
    return names[0] if names else ""


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and bool(value) and all(type(n) is int for n in value)


def _argument(name: str, value: Any, dtype: torch.dtype) -> Any:
    return make_tensor(value, _type_of(name, dtype)) if _is_shape(value) else value


def _type_of(name: str, dtype: torch.dtype) -> torch.dtype:
    return torch.int64 if name.lower().endswith(_WHOLE) else dtype
