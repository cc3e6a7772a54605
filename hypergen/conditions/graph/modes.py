"""The two torch modes that watch a forward: one sees functions, the other kernels beneath them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hypergen.conditions.graph.arithmetic import ARITHMETIC, record_arithmetic
from hypergen.conditions.graph.functions import CELLS, DROPOUTS, FUNCTIONS, RECURRENT, Function
from hypergen.conditions.graph.kernels import Kernel, kernel
from hypergen.conditions.graph.recorder import CONSTANT_LIMIT, Recorder, blank
from hypergen.conditions.graph.recurrent import packed, record_cell, record_recurrent

_CPU = torch.device("cpu")
# What a network may ask of the device it is on: it is told that everything is on the CPU.
_DEVICE = {
    Tensor.device.__get__: _CPU,
    Tensor.is_meta.__get__: False,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__: False,  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: True,  # type: ignore[attr-defined]
    Tensor.get_device: -1,
}
_DATA = Tensor.data.__get__  # type: ignore[attr-defined]


class ReadsValueError(Exception):
    """The forward asked for a number that a trace does not have."""


class FunctionMode(TorchFunctionMode):
    """Writes down the functions of `functions.py`; hands all others to the kernels below."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        kwargs = kwargs or {}
        if func in _DEVICE:
            return _DEVICE[func]
        recorder = self.recorder
        if func is _DATA:
            out = func(*args, **kwargs)
            recorder.call("detach", [("self", args[0])], [out])
            recorder.alias(out, args[0])
            return out
        if func in DROPOUTS:
            return _dropout(recorder, func, args, kwargs)
        if func in RECURRENT:
            recorder.doing = RECURRENT[func]
            return record_recurrent(recorder, RECURRENT[func], args)
        if func in CELLS:
            recorder.doing = CELLS[func]
            return record_cell(recorder, CELLS[func], args)
        if func in ARITHMETIC:
            result = record_arithmetic(recorder, func, args, kwargs)
            return func(*args, **kwargs) if result is None else result
        function = FUNCTIONS.get(func)
        if function is None:
            return func(*args, **kwargs)
        return _compound(recorder, func, function, args, kwargs)


def _dropout(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = {**dict(zip(("input", "p", "training"), args, strict=False)), **kwargs}
    x = bound["input"]
    # F.dropout trains unless told otherwise; alpha_dropout, and torch.dropout's `train`, do not.
    default = func not in (F.alpha_dropout, F.feature_alpha_dropout)
    if not bound.get("training", bound.get("train", default)):
        return x
    out = blank(x.shape, x.dtype)
    recorder.call("dropout", [("input", x)], [out])
    return out


def _compound(
    recorder: Recorder, func: Any, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    bound = dict(zip(function.names, args, strict=False))
    bound.update(kwargs)
    if "self" in bound:
        bound["input"] = bound.pop("self")
    inputs = [(slot, bound[slot]) for slot in function.arguments if bound.get(slot) is not None]
    tensors = [t for _, t in inputs if isinstance(t, Tensor)]
    if all(recorder.value(t) is None for t in tensors):
        return func(*args, **kwargs)
    op = function.name(bound) if function.name else function.op
    recorder.doing = _describe(op, inputs)
    shape = function.shape(bound) if function.shape else None
    if shape is None:
        recorder.silent += 1
        try:
            out = func(*_metas(recorder, args), **_metas(recorder, kwargs))
        finally:
            recorder.silent -= 1
    else:
        like = next(t for t in tensors if t.is_floating_point())  # not what an embedding looks up
        out = blank(shape, bound.get("dtype") or like.dtype)
    first = out[0] if isinstance(out, tuple) else out
    target = tensors[0]
    if _in_place(func, args, kwargs):
        recorder.write(op, target, inputs)
        return target
    recorder.call(op, inputs, [first])
    return out


def _in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    # Of the functions in the table only activations have a flag that is a plain True.
    activation = getattr(func, "__name__", "").rstrip("_") in _FLAGGED
    flag = activation and any(a is True for a in args[1:])
    return flag or kwargs.get("inplace") is True or func.__name__.endswith("_")


_FLAGGED = frozenset(
    [
        "relu",
        "elu",
        "selu",
        "celu",
        "leaky_relu",
        "relu6",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "threshold",
        "silu",
        "mish",
    ]
)


def _metas(recorder: Recorder, value: Any) -> Any:
    if isinstance(value, Tensor):
        return recorder.meta(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_metas(recorder, item) for item in value)
    if isinstance(value, dict):
        return {key: _metas(recorder, item) for key, item in value.items()}
    return value


def _describe(op: str, inputs: list[tuple[str, Any]]) -> str:
    shapes = [f"{s} {list(t.shape)}" for s, t in inputs if isinstance(t, Tensor)]
    return f"{op}({', '.join(shapes)})"


class DispatchMode(TorchDispatchMode):
    """Runs kernels on stand-ins without numbers, and writes down those that no function covers."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Called by torch in place of each kernel."""
        with torch._C.DisableTorchFunction():
            return _dispatch(self.recorder, func, args, kwargs or {})


def _dispatch(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    known = kernel(func)
    inputs = known.tensors(args, kwargs)
    tensors = [t for _, t in inputs]
    if not tensors:
        return _factory(func, known, args, kwargs)
    if recorder.silent:
        return func(*_metas(recorder, args), **_without_device(_metas(recorder, kwargs)))
    small = sum(t.numel() for t in tensors) <= CONSTANT_LIMIT
    if known.reads_shape_only and small:
        # What is made in the shape of data is a constant itself, and may be computed.
        like = torch.empty(args[0].shape, dtype=args[0].dtype, device=_CPU)
        return func(like, *args[1:], **_on_cpu(kwargs))
    if small and all(recorder.is_concrete(t) for t in tensors):
        out = func(*_concretes(recorder, args), **_on_cpu(_concretes(recorder, kwargs)))
    else:
        out = _without_numbers(recorder, func, known, args, kwargs)
    if known.written is not None:
        target = inputs[known.written][1]
        recorder.write(known.op, target, inputs)
        return target if isinstance(out, Tensor) else out
    several = out if isinstance(out, (tuple, list)) else [out]
    outputs = [t for t in several if isinstance(t, Tensor)]
    if known.reads_shape_only:
        return out
    recorder.call(known.op, inputs, outputs, contracted=known.contracted(args))
    if known.is_view:
        for tensor in outputs:
            recorder.alias(tensor, tensors[0])
    return out


def _without_numbers(
    recorder: Recorder, func: Any, known: Kernel, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    recorder.doing = _describe(known.op, known.tensors(args, kwargs))
    if known.reads_values:
        raise ReadsValueError(known.op)
    if known.name == "_pack_padded_sequence" and recorder.is_concrete(args[1]):
        return packed(func, args)
    if known.takes_masks:
        args = _masks_to_positions(recorder, known, args)
    return func(*_metas(recorder, args), **_without_device(_metas(recorder, kwargs)))


def _masks_to_positions(
    recorder: Recorder, known: Kernel, args: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Boolean masks as positions: how many there are must be known."""
    positions: list[Any] = []
    for item in args[1]:
        if not isinstance(item, Tensor) or item.dtype not in (torch.bool, torch.uint8):
            positions.append(item)
        elif recorder.is_concrete(item):
            positions += list(item.nonzero(as_tuple=True))
        else:
            raise ReadsValueError(known.op)
    return (args[0], positions, *args[2:])


def _factory(func: Any, known: Kernel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if "device" not in kwargs and not known.makes:
        return func(*args, **kwargs)
    size = args[0] if args and isinstance(args[0], (list, tuple)) else ()
    numel = 1
    for n in size:
        numel *= n
    where = "cpu" if numel <= CONSTANT_LIMIT else "meta"
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}
    return func(*args, **{**kwargs, "device": torch.device(where)})


def _concretes(recorder: Recorder, value: Any) -> Any:
    if isinstance(value, Tensor):
        return recorder.concrete(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_concretes(recorder, item) for item in value)
    if isinstance(value, dict):
        return {key: _concretes(recorder, item) for key, item in value.items()}
    return value


def _on_cpu(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "device": _CPU} if kwargs.get("device") is not None else kwargs


def _without_device(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key not in ("device", "pin_memory")}
