"""`torch.export` and `torch.fx`, for forwards that cannot be followed as they run."""

from __future__ import annotations

import logging
import operator
import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn

from hypergen.conditions.graph.inputs import Example
from hypergen.conditions.graph.kernels import Kernel, kernel
from hypergen.conditions.graph.recorder import blank
from hypergen.conditions.graph.records import Call, Record, Source
from hypergen.conditions.graph.tracer import TraceError


def record_export(module: nn.Module, example: Example) -> Record:
    """Records what `torch.export` sees.

    Args:
        module: The network.
        example: What to call it with.

    Raises:
        TraceError: The export fails.
    """
    args, kwargs = example.map(lambda name, t: _ready(t, module))
    flags = [(m, m.training) for m in module.modules()]
    level = logging.getLogger("torch").level
    try:
        for m, _ in flags:
            m.training = False
        logging.getLogger("torch").setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, args, kwargs, strict=False)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise TraceError("", type(module).__name__, "", reason) from error
    finally:
        logging.getLogger("torch").setLevel(level)
        for m, flag in flags:
            m.training = flag
    signature = program.graph_signature
    parameters = dict(signature.inputs_to_parameters)
    constants = {*signature.inputs_to_buffers, *signature.inputs_to_lifted_tensor_constants}
    first = {name: names[0] for names in _names(module) for name in names}
    record = Record(method="export")
    values: dict[fx.Node, int] = {}
    scopes: dict[str, int] = {}
    shapes: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            if node.name in constants:
                continue
            if node.name in parameters:
                name = first[parameters[node.name]]
                shape = tuple(module.get_parameter(name).shape)
                if name not in shapes:
                    shapes[name] = _source(record, Source("parameter", name, shape))
                values[node] = shapes[name]
            elif isinstance(node.meta.get("val"), Tensor):
                shape = _shape(node)
                values[node] = _source(record, Source("input", node.name, shape))
        elif node.op == "call_function":
            _kernel_call(record, node, values, scopes)
        elif node.op == "output":
            record.outputs = [values[n] for n in node.all_input_nodes if n in values]
    return record


def _ready(tensor: Tensor, module: nn.Module) -> Tensor:
    """On the device of the module; numbers do not matter, as export computes nothing."""
    where = next((p.device for p in module.parameters()), torch.device("cpu"))
    if tensor.device == where:
        return tensor
    if where.type == "meta":
        return blank(tensor.shape, tensor.dtype)
    return torch.ones(tensor.shape, dtype=tensor.dtype, device=where)


def _names(module: nn.Module) -> list[list[str]]:
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return list(names.values())


def _source(record: Record, source: Source) -> int:
    value = record.value()
    record.sources[value] = source
    return value


def _shape(node: fx.Node) -> tuple[int, ...]:
    """Sizes of a node's tensor; 0 for those that depend on numbers."""
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        value = next((v for v in value if isinstance(v, Tensor)), None)
    if not isinstance(value, Tensor):
        return ()
    return tuple(n if type(n) is int else 0 for n in value.shape)


def _scope(record: Record, node: fx.Node, scopes: dict[str, int]) -> tuple[str, int]:
    stack = list((node.meta.get("nn_module_stack") or {}).items())
    outer = 0
    path = ""
    for key, (name, _) in stack:
        path = name.removeprefix("L['self']").lstrip(".")
        if key not in scopes:
            scopes[key] = len(scopes) + 1
            record.scopes[scopes[key]] = outer
        outer = scopes[key]
    return path, outer


def _kernel_call(
    record: Record, node: fx.Node, values: dict[fx.Node, int], scopes: dict[str, int]
) -> None:
    if node.target is operator.getitem:
        source = node.args[0]
        if isinstance(source, fx.Node) and source in values:
            values[node] = values[source]
        return
    if not isinstance(node.target, torch._ops.OpOverload):
        return
    known = kernel(node.target)
    inputs = _read(known.arguments, node.args, node.kwargs, values)
    if not inputs or known.reads_shape_only:
        return
    path, scope = _scope(record, node, scopes)
    values[node] = record.value()
    contracted = None
    if known.contracts is not None:
        factor = node.args[known.contracts]
        contracted = _shape(factor)[-1] if isinstance(factor, fx.Node) else None
    op = _export_name(known, node)
    record.calls.append(Call(op, inputs, [values[node]], _shape(node), path, scope, contracted))


def _export_name(known: Kernel, node: fx.Node) -> str:
    """The name that `functions.py` gives to what an export leaves whole."""
    bound: dict[str, Any] = {**dict(zip(known.arguments, node.args, strict=False)), **node.kwargs}
    if known.op == "adaptive_avg_pool":
        size = bound["output_size"]
        sizes = size if isinstance(size, (list, tuple)) else [size]
        return "global_avg_pool" if all(n == 1 for n in sizes) else known.op
    groups = bound.get("groups", 1)
    if known.op in ("conv1d", "conv2d", "conv3d") and groups != 1:
        weight = bound["weight"]
        return f"{known.op}_{'depthwise' if _shape(weight)[1] == 1 else 'grouped'}"
    return known.op


def _read(
    names: tuple[str, ...], args: Any, kwargs: Any, values: dict[fx.Node, int]
) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    labels = [*names, *[""] * len(args)]
    for slot, item in (*zip(labels, args, strict=False), *kwargs.items()):
        items = item if isinstance(item, (list, tuple)) else [item]
        found += [(slot, values[n]) for n in items if isinstance(n, fx.Node) and n in values]
    return found


def record_fx(module: nn.Module) -> Record:
    """Records what `torch.fx.symbolic_trace` sees: it runs nothing and needs no example.

    Modules of torch are one operation each; shapes of results are not known.

    Args:
        module: The network.

    Raises:
        TraceError: The forward cannot be traced symbolically.
    """
    try:
        traced = fx.symbolic_trace(module)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise TraceError("", type(module).__name__, "", reason) from error
    first = {name: names[0] for names in _names(module) for name in names}
    record = Record(method="fx")
    values: dict[fx.Node, int] = {}
    known: dict[str, int] = {}

    def parameter(name: str) -> int:
        name = first[name]
        if name not in known:
            shape = tuple(module.get_parameter(name).shape)
            known[name] = _source(record, Source("parameter", name, shape))
        return known[name]

    for node in traced.graph.nodes:
        if node.op == "placeholder":
            values[node] = _source(record, Source("input", node.name, ()))
        elif node.op == "get_attr":
            if str(node.target) in first:
                values[node] = parameter(str(node.target))
        elif node.op == "output":
            record.outputs = [values[n] for n in node.all_input_nodes if n in values]
        else:
            _fx_call(record, module, node, values, parameter)
    return record


def _fx_call(
    record: Record, module: nn.Module, node: fx.Node, values: dict[fx.Node, int], parameter: Any
) -> None:
    inputs = _read((), node.args, node.kwargs, values)
    path = ""
    if node.op == "call_module":
        path = str(node.target)
        layer = module.get_submodule(path)
        op = _layer_name(layer)
        for name, _ in layer.named_parameters(remove_duplicate=False):
            inputs.append((name.rpartition(".")[2].partition("_l")[0], parameter(f"{path}.{name}")))
    elif node.op == "call_method":
        op = str(node.target).rstrip("_")
    else:
        op = getattr(node.target, "__name__", str(node.target)).strip("_")
    if not inputs:
        return
    values[node] = record.value()
    op = _FX_NAMES.get(op, op)
    record.calls.append(Call(op, inputs, [values[node]], None, path, 0))


_FX_NAMES = {
    "iadd": "add",
    "sub": "add",
    "truediv": "mul",
    "imul": "mul",
    "div": "mul",
    "getitem": "select",
    "getattr": "select",
    "size": "select",
    "dim": "select",
    "to": "to_copy",
    "float": "to_copy",
    "concat": "cat",
    "stack": "cat",
    "scaled_dot_product_attention": "attention",
    "identity": "alias",
}


def _layer_name(layer: nn.Module) -> str:
    """`BatchNorm2d` → `batch_norm`, as the other ways of tracing call it."""
    name = type(layer).__name__
    for kind in ("BatchNorm", "InstanceNorm"):
        if name.startswith(kind):
            return f"{kind.removesuffix('Norm').lower()}_norm"
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and layer.groups > 1:
        kind = "depthwise" if layer.weight.shape[1] == 1 else "grouped"
        return f"conv{layer.weight.dim() - 2}d_{kind}"
    for kind in ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool"):
        if name.startswith(kind):
            one = kind == "AdaptiveAvgPool" and layer.output_size in (1, (1, 1), (1,))
            return (
                "global_avg_pool"
                if one
                else {
                    "MaxPool": "max_pool",
                    "AvgPool": "avg_pool",
                    "AdaptiveAvgPool": "adaptive_avg_pool",
                    "AdaptiveMaxPool": "adaptive_max_pool",
                }[kind]
            )
    if name.startswith("Dropout"):
        return "dropout"
    return _LAYERS.get(name, name.lower())


_LAYERS = {
    "LayerNorm": "layer_norm",
    "GroupNorm": "group_norm",
    "RMSNorm": "rms_norm",
    "LeakyReLU": "leaky_relu",
    "Conv1D": "linear",
    "Upsample": "upsample",
    "PixelShuffle": "pixel_shuffle",
    "ConvTranspose1d": "conv_transpose1d",
    "ConvTranspose2d": "conv_transpose2d",
    "ConvTranspose3d": "conv_transpose3d",
    "LogSoftmax": "log_softmax",
    "MultiheadAttention": "attention",
    "ZeroPad2d": "constant_pad_nd",
}
