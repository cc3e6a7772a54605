"""From what a forward did to what a graph shows: no constants, no dead ends, no reshaping."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypergen.conditions.graph.records import Call, Record, Source

# They move numbers about without computing any: whoever reads the result reads their input.
TRANSPARENT = frozenset(
    [
        "view",
        "unsafe_view",
        "reshape",
        "t",
        "transpose",
        "permute",
        "expand",
        "clone",
        "contiguous",
        "detach",
        "alias",
        "to_copy",
        "slice",
        "select",
        "split",
        "split_with_sizes",
        "unsafe_split",
        "unsafe_split_with_sizes",
        "unsafe_chunk",
        "chunk",
        "unbind",
        "squeeze",
        "unsqueeze",
        "flatten",
        "roll",
        "flip",
        "narrow",
        "index",
        "index_select",
        "unsafe_index",
        "gather",
        "dropout",
        "native_dropout",
        "to",
        "type_as",
        "feature_dropout",
        "expand_as",
        "lift_fresh_copy",
        "lift_fresh",
        "lift",
        "constant_pad_nd",
        "reflection_pad1d",
        "reflection_pad2d",
        "replication_pad1d",
        "replication_pad2d",
        "repeat",
        "as_strided",
        "diagonal",
        "tril",
        "triu",
        "unfold",
        "masked_fill",
        "movedim",
        "real",
        "view_as_real",
        "view_as_complex",
        "resolve_conj",
        "reshape_alias",
        "copy",
        "scalar_tensor",
        "sort",
        "topk",
    ]
)
# Of these only the first argument is data; what else they read says where, not what.
_FIRST_ONLY = frozenset(["index", "index_select", "unsafe_index", "gather", "masked_fill"])
# With one argument that is not constant they only shift or scale it, or join it with itself.
_AFFINE = frozenset(
    ["add", "mul", "neg", "cat", "update", "where", "maximum", "minimum", "clamp", "clamp_min"]
)
# A product of data with itself is no shift and no scaling.
_SQUARES = frozenset(["mul"])
_PRODUCTS = frozenset(["matmul", "linear"])
_WRITES = frozenset(["copy", "update", "fill", "zero"])


@dataclass
class Step:
    """One operation that stays: a `Call` whose inputs are sources or other steps.

    Attributes:
        call: What ran.
        inputs: (argument, value) with reshaping left out, each value once.
    """

    call: Call
    inputs: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class Simplified:
    """Steps in the order in which they ran, and what the network returns.

    Attributes:
        steps: Those that reach an output.
        outputs: Values that are returned, of steps or sources.
        used: Parameters' values that any step reads, also steps without a way to an output.
    """

    steps: list[Step]
    outputs: list[int]
    used: set[int]


def simplify(record: Record) -> Simplified:
    """Contracts what only moves, shifts or scales numbers, and drops what reaches no output."""
    stands_for: dict[int, int] = {}
    steps: list[Step] = []
    maker: dict[int, int] = {}
    for call in record.calls:
        inputs = _inputs(call, stands_for)
        distinct = list(dict.fromkeys(value for _, value in inputs))
        if _passes(call, inputs, distinct):
            stands_for.update(dict.fromkeys(call.outputs, distinct[0]))
            continue
        step = Step(call, _as_product(call, inputs, record.sources))
        first = call.outputs[0]
        stands_for.update(dict.fromkeys(call.outputs, first))
        maker[first] = len(steps)
        steps.append(step)
    outputs = list(dict.fromkeys(stands_for.get(v, v) for v in record.outputs))
    used = {v for step in steps for _, v in step.inputs if v in record.sources}
    living: set[int] = set()
    todo = [maker[v] for v in outputs if v in maker]
    while todo:
        at = todo.pop()
        if at not in living:
            living.add(at)
            todo += [maker[v] for _, v in steps[at].inputs if v in maker]
    return Simplified([s for i, s in enumerate(steps) if i in living], outputs, used)


def _inputs(call: Call, stands_for: dict[int, int]) -> list[tuple[str, int]]:
    given = call.inputs
    if call.op in _FIRST_ONLY:
        first = [(slot, v) for slot, v in given if slot in ("self", "input")]
        given = first or given[:1]  # of constants looked up by data, the data
    if call.op in ("copy", "fill", "zero") and call.whole:
        given = [(slot, v) for slot, v in given if slot != "self"]
    return [(slot, stands_for.get(value, value)) for slot, value in given]


def _passes(call: Call, inputs: list[tuple[str, int]], distinct: list[int]) -> bool:
    if len(distinct) != 1:
        return False
    if call.op in TRANSPARENT or call.op in _WRITES:
        return True
    return call.op in _AFFINE and not (call.op in _SQUARES and len(inputs) > 1)


def _as_product(
    call: Call, inputs: list[tuple[str, int]], sources: dict[int, Source]
) -> list[tuple[str, int]]:
    """Names the arguments of a product with a parameter as those of a linear layer."""
    if call.op == "copy":
        call.op = "update"  # of a part
    if call.op not in _PRODUCTS or call.contracted is None:
        return list(dict.fromkeys(inputs))
    own = [v in sources and sources[v].kind == "parameter" for _, v in inputs]
    # `mm(self, mat2)`: self is a factor; in `addmm(self, mat1, mat2)` it is what is added.
    factors = [slot != "self" or call.op == "matmul" for slot, _ in inputs]
    weights = [i for i, (o, f) in enumerate(zip(own, factors, strict=True)) if o and f]
    call.op = "linear" if weights else "matmul"
    if not weights:
        return list(dict.fromkeys(inputs))
    named = []
    for i, (slot, value) in enumerate(inputs):
        if factors[i]:  # of two parameters the second is the matrix
            named.append(("weight" if i == weights[-1] else "input", value))
        else:
            named.append(("bias" if own[i] else slot, value))
    return list(dict.fromkeys(named))
