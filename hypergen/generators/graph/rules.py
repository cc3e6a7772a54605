"""What to generate for each parameter of a graph: as which matrix, of which size of numbers."""

from __future__ import annotations

import fnmatch
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hypergen._utils.errors import ConditionError
from hypergen.conditions.graph import ModuleGraph, Node
from hypergen.specs import FullSpec, Slot
from hypergen.specs.slot import Role

Form = Literal["matrix", "scale", "shift"]
Sizes = tuple[Form, int, int, tuple[int, ...]]

MAX_KERNEL = 1024  # positions of a kernel; those of longer ones are taken for inputs

# What a value passes between a layer and its activation.
_THROUGH = frozenset(
    ["batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "max_pool", "avg_pool"]
)
# Activations that halve the second moment, about.
_RECTIFIERS = frozenset(
    [
        *("relu", "relu6", "leaky_relu", "elu", "celu", "gelu", "quick_gelu", "silu", "mish"),
        *("hardswish", "softplus"),
    ]
)
_NORM_SCALES = frozenset(
    f"{norm}_norm.weight" for norm in ("batch", "layer", "group", "instance", "rms")
)


@dataclass(frozen=True)
class Rule:
    """How one parameter is generated.

    Attributes:
        node: Number of its node.
        role: The operation that first reads it, and the argument that it is there.
        slot: Its slot: name, shape, start.
        form: A `matrix`; a `scale`, around its mean and of one sign with it; or a `shift` around 0.
        rows: Rows o of the matrix, or the length of the vector.
        columns: Columns c of the matrix; 1 of a vector.
        kernel: Sizes of the kernel that each pair of row and column has; `()` without one.
        order: How many parameters of the same sizes come before it.
    """

    node: int
    role: str
    slot: Slot
    form: Form
    rows: int
    columns: int
    kernel: tuple[int, ...]
    order: int

    @property
    def sizes(self) -> Sizes:
        """What parameters that are generated together have in common."""
        return self.form, self.rows, self.columns, self.kernel


@dataclass(frozen=True)
class Architecture:
    """One graph's rules, in the order of the spec.

    Attributes:
        spec: The slots.
        rules: One for each slot of the spec, in its order.
    """

    spec: FullSpec
    rules: tuple[Rule, ...]


_KNOWN: dict[int, dict[tuple[str, ...], Architecture]] = {}


def architecture(graph: ModuleGraph, keep: str | Sequence[str] = ()) -> Architecture:
    """The rules of a graph; computed once for each `ModuleGraph` and kept with it.

    Args:
        graph: The graph.
        keep: Globs over the names of parameters that are not generated.

    Raises:
        ConditionError: A pattern matches nothing, or nothing is left to generate.
    """
    patterns = (keep,) if isinstance(keep, str) else tuple(keep)
    known = _KNOWN.setdefault(id(graph), {})
    if not known:
        weakref.finalize(graph, _KNOWN.pop, id(graph), None)
    if patterns not in known:
        known[patterns] = _architecture(graph, patterns)
    return known[patterns]


def _architecture(graph: ModuleGraph, patterns: tuple[str, ...]) -> Architecture:
    names = [*graph.parameters, *(skipped.name for skipped in graph.skipped)]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ConditionError(f"keep={pattern!r} matches no parameter of {graph.name}")
    counts: dict[tuple[int, int, tuple[int, ...]], int] = {}
    rules: dict[str, Rule] = {}
    for number, node in graph.of_kind("parameter"):
        if math.prod(node.shape) == 0:
            continue
        rows, columns, kernel = sizes(node)
        order = counts[rows, columns, kernel] = counts.get((rows, columns, kernel), -1) + 1
        if any(fnmatch.fnmatchcase(n, p) for n in (node.name, *node.ties) for p in patterns):
            continue
        slot, form = _slot(graph, number, node)
        if form != "matrix":
            rows, columns, kernel = math.prod(node.shape), 1, ()
        rules[node.name] = Rule(number, node.op, slot, form, rows, columns, kernel, order)
    if not rules:
        raise ConditionError(f"{graph.name} has no parameter to generate")
    spec = FullSpec.of(
        [rule.slot for rule in rules.values()], {"graph": graph.hash, "class": graph.name}
    )
    return Architecture(spec, tuple(rules[slot.name] for slot in spec))


def sizes(node: Node) -> tuple[int, int, tuple[int, ...]]:
    """Rows, columns and kernel of a parameter as a matrix."""
    shape = node.shape
    if node.op.startswith("conv") and len(shape) > 2:
        if math.prod(shape[2:]) <= MAX_KERNEL:
            return shape[0], shape[1], tuple(shape[2:])
        return shape[0], math.prod(shape[1:]), ()
    shape = tuple(n for n in shape if n > 1)
    if len(shape) < 2:
        return 1, math.prod(shape), ()
    return math.prod(shape[:-1]), shape[-1], ()


def _slot(graph: ModuleGraph, number: int, node: Node) -> tuple[Slot, Form]:
    role, form, mean, std = _start(graph, number, node)
    slot = Slot(
        name=node.name,
        shape=node.shape,
        role=role,
        module=node.name.rpartition(".")[0],
        fan_in=node.fan_in,
        ties=node.ties,
        mean=mean,
        std=std,
        scale=std or 0.1,
    )
    return slot, form


def _start(graph: ModuleGraph, number: int, node: Node) -> tuple[Role, Form, float, float]:
    """Role, form, mean and standard deviation at the start."""
    op, _, argument = node.op.partition(".")
    if node.op in _NORM_SCALES:
        return "norm", "scale", 1.0, 0.0
    if argument.startswith("bias"):
        return "bias", "shift", 0.0, 0.0
    if op == "prelu":
        return "other", "scale", 0.25, 0.0
    vector = max(node.shape, default=1) == math.prod(node.shape)
    if vector and op == "mul":  # scales of layers or channels
        return "norm", "scale", 1.0, 0.0
    if vector and op not in ("add", "cat", "linear", "matmul", "attention", "conv"):
        return "other", "shift", 0.0, 0.0
    if op == "embedding" or any(
        reader.startswith("embedding") for reader, *_ in graph.uses(number)
    ):
        # Of width d: 1/sqrt(d), so that logits of a tied head have variance 1.
        return "embedding", "matrix", 0.0, 1 / math.sqrt(node.shape[-1])
    if node.fan_in is None:  # tokens and positions that are added or joined
        return "other", "matrix", 0.0, 0.02
    gain = 2.0 if _rectified(graph, number) else 1.0
    return "weight", "matrix", 0.0, math.sqrt(gain / node.fan_in)


def _rectified(graph: ModuleGraph, number: int) -> bool:
    """Whether what a parameter's layer makes goes into a rectifier, at most through norms."""
    at = [edge.target for edge in graph._out.get(number, ())][:1]
    for _ in range(4):
        if not at:
            return False
        following = [edge.target for edge in graph._out.get(at[0], ())]
        ops = {graph.nodes[i].op for i in following}
        if ops & _RECTIFIERS:
            return True
        at = [i for i in following if graph.nodes[i].op in _THROUGH][:1]
    return False
