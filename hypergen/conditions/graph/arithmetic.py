"""Sums, products and elementwise functions: what they return, without asking a kernel.

Kernels for tensors without numbers are Python in torch, and slow; forwards call these the most.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from hypergen.conditions.graph.recorder import Recorder, blank

Kind = Literal["unary", "binary", "cat", "matmul", "addmm"]
Shape = tuple[int, ...]

_UNARY = ("neg", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "abs", "erf", "square", "reciprocal")
# Subtracting is adding and dividing is multiplying, as far as a graph is concerned.
_BINARY = {"add": "add", "sub": "add", "mul": "mul", "div": "mul", "true_divide": "mul"}


def _table() -> dict[Any, tuple[str, Kind]]:
    table: dict[Any, tuple[str, Kind]] = {}

    def add(name: str, op: str, kind: Kind) -> None:
        for owner in (torch, Tensor):
            for spelling in (name, f"{name}_"):
                if hasattr(owner, spelling):
                    table[getattr(owner, spelling)] = op, kind

    for name in _UNARY:
        add(name, name, "unary")
    add("pow", "pow", "unary")
    for name, op in _BINARY.items():
        add(name, op, "binary")
    add("matmul", "matmul", "matmul")
    add("bmm", "matmul", "matmul")
    add("mm", "matmul", "matmul")
    add("addmm", "linear", "addmm")
    table.update(dict.fromkeys((torch.cat, torch.concat, torch.concatenate), ("cat", "cat")))
    return table


ARITHMETIC = _table()


def record_arithmetic(
    recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    """Writes down a call of one of `ARITHMETIC`.

    Returns:
        Its result; None where the kernel has to tell: constants, whole numbers, tensors of several
        types, shapes that do not fit.
    """
    op, kind = ARITHMETIC[func]
    if not args or set(kwargs) - {"alpha", "dim"}:
        return None
    operands = args[0] if kind == "cat" else args[:1] if kind == "unary" else args[:3]
    if not isinstance(operands, (tuple, list)) or not operands:
        return None
    tensors = [t for t in operands if isinstance(t, Tensor)]
    if not tensors or not _fit(recorder, tensors):
        return None
    shape = _shape(kind, args, kwargs)
    if shape is None:
        return None
    slots = ("tensors",) * len(operands) if kind == "cat" else _SLOTS[kind]
    inputs = [(s, t) for s, t in zip(slots, operands, strict=False) if isinstance(t, Tensor)]
    if func.__name__.endswith("_"):
        if shape != tuple(tensors[0].shape) or operands[0] is not tensors[0]:
            return None
        recorder.write(op, tensors[0], inputs)
        return tensors[0]
    out = blank(shape, tensors[0].dtype)
    factor = {"matmul": 0, "addmm": 1}.get(kind)
    contracted = None if factor is None else int(args[factor].shape[-1])
    recorder.call(op, inputs, [out], contracted=contracted)
    return out


_SLOTS = {
    "unary": ("self",),
    "binary": ("self", "other"),
    "matmul": ("self", "other"),
    "addmm": ("self", "mat1", "mat2"),
}


def _fit(recorder: Recorder, tensors: list[Tensor]) -> bool:
    """Whether all are of one floating-point type, and not all are constant."""
    dtype = tensors[0].dtype
    if not dtype.is_floating_point or any(t.dtype != dtype for t in tensors):
        return False
    return any(recorder.value(t) is not None for t in tensors)


def _shape(kind: Kind, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shape | None:
    if kind == "cat":
        return _joined(args[0], kwargs.get("dim", args[1] if len(args) > 1 else 0))
    if kind == "unary":
        plain = all(type(a) in (int, float) for a in args[1:])
        return tuple(args[0].shape) if isinstance(args[0], Tensor) and plain else None
    if kind == "binary":
        return _broadcast(*(_sizes(a) for a in args)) if len(args) == 2 else None
    if kind == "addmm":
        if len(args) != 3 or not all(isinstance(a, Tensor) for a in args):
            return None
        product = _product(args[1], args[2])
        added = tuple(args[0].shape)
        return product if product and _broadcast(added, product) == product else None
    return _product(*args) if len(args) == 2 else None


def _sizes(value: Any) -> Shape | None:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return () if type(value) in (int, float) else None


def _broadcast(a: Shape | None, b: Shape | None) -> Shape | None:
    if a is None or b is None or a == b:
        return a if a == b else None
    short, long = sorted((a, b), key=len)
    sizes = list(long)
    for i in range(1, len(short) + 1):
        if sizes[-i] == 1:
            sizes[-i] = short[-i]
        elif short[-i] not in (1, sizes[-i]):
            return None
    return tuple(sizes)


def _product(x: Any, y: Any) -> Shape | None:
    if x.dim() < 2 or y.dim() < 2 or x.shape[-1] != y.shape[-2]:
        return None
    outer = _broadcast(tuple(x.shape[:-2]), tuple(y.shape[:-2]))
    return None if outer is None else (*outer, x.shape[-2], y.shape[-1])


def _joined(tensors: Any, dim: Any) -> Shape | None:
    first = tuple(tensors[0].shape)
    if type(dim) is not int or not -len(first) <= dim < len(first):
        return None
    dim %= len(first)
    for tensor in tensors:
        shape = tuple(tensor.shape)
        if len(shape) != len(first) or shape[:dim] != first[:dim]:
            return None
        if shape[dim + 1 :] != first[dim + 1 :]:
            return None
    return (*first[:dim], sum(t.shape[dim] for t in tensors), *first[dim + 1 :])
