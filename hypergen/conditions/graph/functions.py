"""Functions of torch that are one operation of a graph, and the shapes that they return.

A function-level trace keeps `linear`, an LSTM layer or attention as the one step that they are,
whatever kernels they fall apart into on some device. A shape rule spares the kernel's own (slow)
meta implementation; where a rule does not apply, that implementation runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Function:
    """One function as an operation.

    Attributes:
        op: Name of the operation.
        arguments: Names of its tensor arguments, by position.
        names: Names of all its arguments, by position.
        shape: Bound arguments → shape of the result; None where the kernel has to tell.
        name: Bound arguments → name of the operation, where it depends on them.
    """

    op: str
    arguments: tuple[str, ...]
    names: tuple[str, ...]
    shape: Callable[[dict[str, Any]], Shape | None] | None = None
    name: Callable[[dict[str, Any]], str] | None = None


def _same(a: dict[str, Any]) -> Shape:
    return tuple(a["input"].shape)


def _linear(a: dict[str, Any]) -> Shape | None:
    x, weight = a["input"], a["weight"]
    if weight.dim() != 2 or not x.dim() or x.shape[-1] != weight.shape[1]:
        return None
    return (*x.shape[:-1], weight.shape[0])


def _embedding(a: dict[str, Any]) -> Shape:
    return (*a["input"].shape, a["weight"].shape[1])


def _attention(a: dict[str, Any]) -> Shape | None:
    query, key, value = a["query"], a["key"], a["value"]
    if query.dim() < 3 or query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        return None
    return (*query.shape[:-1], value.shape[-1])


def _tuple(value: Any, n: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * n
    values = tuple(value)
    return values * n if len(values) == 1 else values


def _window(size: int, kernel: int, stride: int, padding: int, dilation: int, up: bool) -> int:
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    return (-(-span // stride) if up else span // stride) + 1


def _convolution(a: dict[str, Any]) -> Shape | None:
    x, weight = a["input"], a["weight"]
    n = weight.dim() - 2
    padding = a.get("padding", 0)
    if x.dim() != n + 2 or padding == "valid":
        padding = 0
    if x.dim() != n + 2 or x.shape[1] != weight.shape[1] * a.get("groups", 1):
        return None
    if padding == "same":
        return (x.shape[0], weight.shape[0], *x.shape[2:])
    stride, dilation = _tuple(a.get("stride", 1), n), _tuple(a.get("dilation", 1), n)
    padding = _tuple(padding, n)
    sizes = [
        _window(x.shape[2 + i], weight.shape[2 + i], stride[i], padding[i], dilation[i], False)
        for i in range(n)
    ]
    return (x.shape[0], weight.shape[0], *sizes) if min(sizes) > 0 else None


def _convolution_name(a: dict[str, Any]) -> str:
    n, groups = a["weight"].dim() - 2, a.get("groups", 1)
    if groups == 1:
        return f"conv{n}d"
    return f"conv{n}d_depthwise" if a["weight"].shape[1] == 1 else f"conv{n}d_grouped"


def _glu(a: dict[str, Any]) -> Shape:
    shape = list(a["input"].shape)
    shape[a.get("dim", -1)] //= 2
    return tuple(shape)


def _pool(a: dict[str, Any]) -> Shape | None:
    x = a["input"]
    n = a["n"]
    if x.dim() != n + 2 or a.get("ceil_mode", False) or a.get("return_indices", False):
        return None
    kernel = _tuple(a["kernel_size"], n)
    stride = _tuple(a.get("stride") or kernel, n)
    padding, dilation = _tuple(a.get("padding", 0), n), _tuple(a.get("dilation", 1), n)
    sizes = [
        _window(x.shape[2 + i], kernel[i], stride[i], padding[i], dilation[i], False)
        for i in range(n)
    ]
    return (*x.shape[:2], *sizes) if min(sizes) > 0 else None


def _adaptive(a: dict[str, Any]) -> Shape | None:
    n = a["n"]
    x = a["input"]
    size = a["output_size"]
    if x.dim() != n + 2 or a.get("return_indices", False):
        return None
    sizes = (size,) * n if isinstance(size, int) or size is None else tuple(size)
    return (*x.shape[:2], *(x.shape[2 + i] if s is None else s for i, s in enumerate(sizes)))


def _adaptive_name(a: dict[str, Any]) -> str:
    size = a["output_size"]
    ones = size == 1 if isinstance(size, int) else all(s == 1 for s in size or (0,))
    return "global_avg_pool" if ones else "adaptive_avg_pool"


_ACTIVATIONS = [
    "relu",
    "gelu",
    "silu",
    "sigmoid",
    "tanh",
    "elu",
    "selu",
    "celu",
    "leaky_relu",
    "relu6",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "mish",
    "softplus",
    "softsign",
    "logsigmoid",
    "tanhshrink",
    "softshrink",
    "hardshrink",
    "softmax",
    "log_softmax",
    "softmin",
    "threshold",
]


def _table() -> dict[Any, Function]:
    table: dict[Any, Function] = {}

    def add(functions: Sequence[Any], op: str, tensors: str, names: str, **rest: Any) -> None:
        function = Function(op, tuple(tensors.split()), tuple(names.split()), **rest)
        table.update(dict.fromkeys(functions, function))

    for name in _ACTIVATIONS:
        owners = (F, torch, Tensor)
        found = [getattr(o, n) for o in owners for n in (name, f"{name}_") if hasattr(o, n)]
        add(found, name, "input", "input", shape=_same)
    add([F.glu], "glu", "input", "input dim", shape=_glu)
    add([F.prelu, torch.prelu], "prelu", "input weight", "input weight", shape=_same)
    add([F.linear], "linear", "input weight bias", "input weight bias", shape=_linear)
    add([F.bilinear], "bilinear", "input1 input2 weight bias", "input1 input2 weight bias")
    words = "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse"
    add([F.embedding], "embedding", "input weight", words, shape=_embedding)
    words = "input weight offsets max_norm norm_type scale_grad_by_freq mode"
    add([F.embedding_bag], "embedding_bag", "input weight", words)
    words = "query key value attn_mask dropout_p is_causal"
    add(
        [F.scaled_dot_product_attention],
        "attention",
        "query key value attn_mask",
        words,
        shape=_attention,
    )
    words = "input weight bias stride padding dilation groups"
    for n, functions in enumerate(
        ([F.conv1d, torch.conv1d], [F.conv2d, torch.conv2d], [F.conv3d, torch.conv3d]), 1
    ):
        add(
            functions,
            f"conv{n}d",
            "input weight bias",
            words,
            shape=_convolution,
            name=_convolution_name,
        )
    words = "input weight bias stride padding output_padding groups dilation"
    for n, f in enumerate((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), 1):
        add([f], f"conv_transpose{n}d", "input weight bias", words)
    affine = "input weight bias"
    words = "input normalized_shape weight bias eps"
    add([F.layer_norm, torch.layer_norm], "layer_norm", affine, words, shape=_same)
    words = "input normalized_shape weight eps"
    add([F.rms_norm, torch.rms_norm], "rms_norm", "input weight", words, shape=_same)
    words = "input num_groups weight bias eps"
    add([F.group_norm, torch.group_norm], "group_norm", affine, words, shape=_same)
    words = "input running_mean running_var weight bias training momentum eps"
    add([F.batch_norm], "batch_norm", affine, words, shape=_same)
    words = "input running_mean running_var weight bias use_input_stats momentum eps"
    add([F.instance_norm], "instance_norm", affine, words, shape=_same)
    add([F.local_response_norm], "local_response_norm", "input", "input size", shape=_same)
    add([F.interpolate], "upsample", "input", "input size scale_factor mode")
    add([F.pixel_shuffle], "pixel_shuffle", "input", "input upscale_factor")
    add([F.pixel_unshuffle], "pixel_unshuffle", "input", "input downscale_factor")
    for n in (1, 2, 3):
        words = "input kernel_size stride padding ceil_mode count_include_pad"
        average = [getattr(F, f"avg_pool{n}d")]
        add(average, "avg_pool", "input", words, shape=_with_axes(_pool, n))
        words = "input kernel_size stride padding dilation ceil_mode return_indices"
        maximum = [getattr(F, f"max_pool{n}d"), getattr(torch, f"max_pool{n}d")]
        add(maximum, "max_pool", "input", words, shape=_with_axes(_pool, n))
        adaptive = [getattr(F, f"adaptive_avg_pool{n}d")]
        add(
            adaptive,
            "adaptive_avg_pool",
            "input",
            "input output_size",
            shape=_with_axes(_adaptive, n),
            name=_adaptive_name,
        )
        adaptive = [getattr(F, f"adaptive_max_pool{n}d")]
        words = "input output_size return_indices"
        add(adaptive, "adaptive_max_pool", "input", words, shape=_with_axes(_adaptive, n))
    return table


def _with_axes(rule: Callable[[dict[str, Any]], Shape | None], n: int) -> Any:
    return lambda arguments: rule({**arguments, "n": n})


FUNCTIONS = _table()
DROPOUTS = frozenset(
    [
        F.dropout,
        F.dropout1d,
        F.dropout2d,
        F.dropout3d,
        F.alpha_dropout,
        F.feature_alpha_dropout,
        torch.dropout,
    ]
)
RECURRENT = {
    torch.lstm: "lstm",
    torch.gru: "gru",
    torch.rnn_tanh: "rnn_tanh",
    torch.rnn_relu: "rnn_relu",
}
CELLS = {
    torch.lstm_cell: "lstm_cell",
    torch.gru_cell: "gru_cell",
    torch.rnn_tanh_cell: "rnn_tanh_cell",
    torch.rnn_relu_cell: "rnn_relu_cell",
}
