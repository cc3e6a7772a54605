"""Numbers for the names of operations and of the parameters' roles: known ones, then buckets."""

from __future__ import annotations

import hashlib

VERSION = 1
BUCKETS = 64

# Appended to only: the position of a name is its number in every generator that was ever trained.
_OPS = [
    "input",
    "output",
    "linear",
    "bilinear",
    "embedding",
    "embedding_bag",
    "matmul",
    "attention",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv1d_depthwise",
    "conv2d_depthwise",
    "conv3d_depthwise",
    "conv1d_grouped",
    "conv2d_grouped",
    "conv3d_grouped",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "conv",
    "batch_norm",
    "layer_norm",
    "group_norm",
    "instance_norm",
    "rms_norm",
    "local_response_norm",
    "weight_norm",
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
    "glu",
    "prelu",
    "softmax",
    "log_softmax",
    "quick_gelu",
    "add",
    "mul",
    "cat",
    "pow",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "abs",
    "neg",
    "reciprocal",
    "erf",
    "mean",
    "sum",
    "var",
    "max",
    "min",
    "amax",
    "cumsum",
    "norm",
    "where",
    "maximum",
    "minimum",
    "clamp",
    "update",
    "scatter_sum",
    "scatter_reduce",
    "masked_fill",
    "max_pool",
    "avg_pool",
    "global_avg_pool",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "upsample",
    "pixel_shuffle",
    "lstm",
    "gru",
    "rnn_tanh",
    "rnn_relu",
    "lstm_cell",
    "gru_cell",
    "rnn_tanh_cell",
    "rnn_relu_cell",
]
_ROLES = [
    *(f"linear.{slot}" for slot in ("weight", "bias")),
    "embedding.weight",
    *(f"conv{n}d.{slot}" for n in (1, 2, 3) for slot in ("weight", "bias")),
    *(f"conv{n}d_depthwise.{slot}" for n in (1, 2, 3) for slot in ("weight", "bias")),
    *(f"conv{n}d_grouped.{slot}" for n in (1, 2, 3) for slot in ("weight", "bias")),
    *(f"conv_transpose{n}d.{slot}" for n in (1, 2, 3) for slot in ("weight", "bias")),
    *(
        f"{norm}.{slot}"
        for norm in ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
        for slot in ("weight", "bias")
    ),
    *(
        f"{layer}.{slot}"
        for layer in ("lstm", "gru", "rnn_tanh", "rnn_relu")
        for slot in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    ),
    *(
        f"{layer}.{slot}"
        for layer in ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
        for slot in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ),
    "add.parameter",
    "mul.parameter",
    "cat.parameter",
    "matmul.parameter",
    "exp.parameter",
    "prelu.weight",
    "attention.parameter",
    "bilinear.weight",
    "bilinear.bias",
    "weight_norm.parameter",
    "unused",
]
KNOWN: dict[str, int] = {name: i for i, name in enumerate([*_OPS, *_ROLES])}
SIZE = 512  # room for names to come, so that buckets keep their numbers
TOTAL = SIZE + BUCKETS


def number(name: str) -> int:
    """The number of an operation or a role, in `range(TOTAL)`.

    A name that is not known gets one of `BUCKETS` numbers by its hash: the same in every process,
    and shared with few others.
    """
    known = KNOWN.get(name)
    if known is not None:
        return known
    digest = hashlib.sha256(name.encode()).digest()
    return SIZE + int.from_bytes(digest[:8], "big") % BUCKETS
