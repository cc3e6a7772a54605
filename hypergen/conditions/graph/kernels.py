"""What a trace has to know of an ATen kernel, read off its schema."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

# One name for what differs only by the kernel that torch picks.
_CANONICAL = {
    "mm": "matmul",
    "bmm": "matmul",
    "addmm": "linear",
    "baddbmm": "linear",
    "addbmm": "linear",
    "addmv": "linear",
    "mv": "matmul",
    "dot": "matmul",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "native_batch_norm": "batch_norm",
    "cudnn_batch_norm": "batch_norm",
    "_native_batch_norm_legit": "batch_norm",
    "_native_batch_norm_legit_no_training": "batch_norm",
    "_batch_norm_with_update": "batch_norm",
    "_fused_rms_norm": "rms_norm",
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "max_pool2d_with_indices": "max_pool",
    "max_pool3d_with_indices": "max_pool",
    "avg_pool2d": "avg_pool",
    "avg_pool3d": "avg_pool",
    "avg_pool1d": "avg_pool",
    "max_pool1d": "max_pool",
    "max_pool2d": "max_pool",
    "max_pool3d": "max_pool",
    "adaptive_avg_pool1d": "adaptive_avg_pool",
    "adaptive_avg_pool2d": "adaptive_avg_pool",
    "adaptive_avg_pool3d": "adaptive_avg_pool",
    "scaled_dot_product_attention": "attention",
    "_adaptive_avg_pool2d": "adaptive_avg_pool",
    "_adaptive_avg_pool3d": "adaptive_avg_pool",
    "adaptive_max_pool2d": "adaptive_max_pool",
    "upsample_nearest1d": "upsample",
    "upsample_nearest2d": "upsample",
    "upsample_nearest3d": "upsample",
    "upsample_bilinear2d": "upsample",
    "upsample_bicubic2d": "upsample",
    "upsample_linear1d": "upsample",
    "upsample_trilinear3d": "upsample",
    "_upsample_bilinear2d_aa": "upsample",
    "_upsample_bicubic2d_aa": "upsample",
    "_scaled_dot_product_flash_attention_for_cpu": "attention",
    "_scaled_dot_product_flash_attention": "attention",
    "_scaled_dot_product_efficient_attention": "attention",
    "_scaled_dot_product_attention_math_for_mps": "attention",
    "_weight_norm_interface": "weight_norm",
    "linalg_vector_norm": "norm",
    "scatter_add": "scatter_sum",
    "index_add": "scatter_sum",
    "index_put": "update",
    "_index_put_impl": "update",
    "scatter": "update",
    "slice_scatter": "update",
    "select_scatter": "update",
    "index_copy": "update",
    "masked_scatter": "update",
    "convolution": "conv",
    "_convolution": "conv",
    "div": "mul",
    "true_divide": "mul",
    "sub": "add",
    "rsub": "add",
    "concat": "cat",
    "concatenate": "cat",
    "stack": "cat",
    "hstack": "cat",
    "vstack": "cat",
}
_READS_VALUES = frozenset(
    [
        "_local_scalar_dense",
        "nonzero",
        "nonzero_static",
        "masked_select",
        "equal",
        "is_nonzero",
        "unique_dim",
        "_unique",
        "_unique2",
        "unique_consecutive",
        "bincount",
        "repeat_interleave",
        "histc",
        "_assert_async",
    ]
)
_MASKED = frozenset(["index", "_unsafe_index", "index_put", "_index_put_impl", "_unsafe_index_put"])
_SHAPE_ONLY = frozenset(
    [
        "zeros_like",
        "ones_like",
        "empty_like",
        "full_like",
        "rand_like",
        "randn_like",
        "randint_like",
        "new_zeros",
        "new_ones",
        "new_empty",
        "new_full",
        "new_empty_strided",
        "sym_size",
        "sym_numel",
        "sym_stride",
    ]
)
# Position of the argument whose last axis a product sums over.
_CONTRACTED = {
    "matmul": 0,
    "mm": 0,
    "bmm": 0,
    "mv": 0,
    "addmm": 1,
    "baddbmm": 1,
    "addbmm": 1,
    "addmv": 1,
}


@dataclass(frozen=True)
class Kernel:
    """One ATen overload.

    Attributes:
        name: Its name without overload and underscore at the end.
        op: The name of the operation in a graph.
        arguments: Names of its arguments, by position.
        written: Position of the argument that it writes to; None if it makes new tensors.
        is_view: Whether what it returns shares memory with its first argument.
        makes: Whether it makes tensors out of none.
    """

    name: str
    op: str
    arguments: tuple[str, ...]
    written: int | None
    is_view: bool
    makes: bool

    @property
    def reads_values(self) -> bool:
        """Whether its result's shape or value depends on numbers."""
        return self.name in _READS_VALUES

    @property
    def takes_masks(self) -> bool:
        """Whether it may be indexed by boolean masks."""
        return self.name in _MASKED

    @property
    def reads_shape_only(self) -> bool:
        """Whether it takes nothing but the shape from its arguments."""
        return self.name in _SHAPE_ONLY

    def tensors(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Tensor]]:
        """(argument, tensor) of all tensors among the arguments, also those in lists."""
        found: list[tuple[str, Tensor]] = []
        for slot, value in (*zip(self.arguments, args, strict=False), *kwargs.items()):
            if isinstance(value, Tensor):
                found.append((slot, value))
            elif isinstance(value, (list, tuple)):
                found += [(slot, item) for item in value if isinstance(item, Tensor)]
        return found

    @property
    def contracts(self) -> int | None:
        """Position of the argument whose last axis a product sums over."""
        return _CONTRACTED.get(self.name)

    def contracted(self, args: tuple[Any, ...]) -> int | None:
        """Length of the axis that a product sums over."""
        return None if self.contracts is None else int(args[self.contracts].shape[-1])


@cache
def kernel(func: Any) -> Kernel:
    """What there is to know of an overload."""
    schema = func._schema
    name = schema.name.split("::")[-1]
    base = name[:-1] if name.endswith("_") and not name.startswith("__") else name
    arguments = tuple(a.name for a in schema.arguments)
    written = [i for i, a in enumerate(schema.arguments) if a.alias_info and a.alias_info.is_write]
    aliases = [a.alias_info for a in schema.arguments if a.alias_info]
    return Kernel(
        name=base,
        op=_CANONICAL.get(base, base.lstrip("_")),
        arguments=arguments,
        written=written[0] if written and name != "batch_norm" else None,
        is_view=bool(aliases) and not written,
        makes="device" in arguments and not any("Tensor" in str(a.type) for a in schema.arguments),
    )
