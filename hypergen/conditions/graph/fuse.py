"""Norms and activations that a module spells out, as the one operation that they are."""

from __future__ import annotations

from itertools import groupby

from hypergen.conditions.graph.records import Record
from hypergen.conditions.graph.simplify import Simplified, Step

# What a module without submodules runs, shifting and scaling left out → the operation.
_SPELT_OUT = {
    "pow mean rsqrt mul mul": "rms_norm",
    "pow mean rsqrt mul": "rms_norm",
    "pow mean pow mul mul": "rms_norm",
    "pow mean pow mul": "rms_norm",
    "mul mean rsqrt mul mul": "rms_norm",
    "mul mean rsqrt mul": "rms_norm",
    "mean add pow mean sqrt mul mul add": "layer_norm",
    "mean add pow mean add sqrt mul mul add": "layer_norm",
    "mean add pow mean rsqrt mul mul add": "layer_norm",
    "mean var add sqrt mul mul add": "layer_norm",
    "pow add tanh mul": "gelu",
    "mul mul add tanh mul": "gelu",
    "erf mul": "gelu",
    "sigmoid mul": "silu",
}


def fuse(found: Simplified, record: Record) -> Simplified:
    """Spelt-out norms, activations and attention, each as one step."""
    return _fuse_attention(_fuse_modules(found, record))


def _fuse_attention(found: Simplified) -> Simplified:
    """Replaces product, softmax and product by `attention`, as the fused kernel is called.

    Between the first product and the softmax something may be added (a mask, a bias of positions).
    """
    made = {step.call.outputs[0]: step for step in found.steps}
    readers: dict[int, list[Step]] = {}
    for step in found.steps:
        for value in {v for _, v in step.inputs}:
            readers.setdefault(value, []).append(step)
    dropped: set[int] = set()
    for softmax in found.steps:
        if softmax.call.op != "softmax" or len(softmax.inputs) != 1:
            continue
        scores = made.get(softmax.inputs[0][1])
        inner, extra = [softmax], []
        if scores is not None and scores.call.op == "add":
            products = [v for _, v in scores.inputs if _is_product(made.get(v))]
            if len(products) == 1:
                extra = [("attn_mask", v) for _, v in scores.inputs if v != products[0]]
                inner.append(scores)
                scores = made[products[0]]
        last = readers.get(softmax.call.outputs[0], [])
        if scores is None or not _is_product(scores) or len(last) != 1 or not _is_product(last[0]):
            continue
        inner.append(scores)
        hidden = {s.call.outputs[0] for s in inner}
        if hidden & set(found.outputs) or any(len(readers.get(v, ())) != 1 for v in hidden):
            continue
        slots = ("query", "key")
        both = [(slot, v) for slot, (_, v) in zip(slots, scores.inputs, strict=False)]
        values = [("value", v) for _, v in last[0].inputs if v not in hidden]
        last[0].call.op = "attention"
        last[0].inputs = [*both, *values, *extra]
        dropped |= hidden
    steps = [s for s in found.steps if s.call.outputs[0] not in dropped]
    return Simplified(steps, found.outputs, found.used)


def _is_product(step: Step | None) -> bool:
    return step is not None and step.call.op == "matmul"


def _fuse_modules(found: Simplified, record: Record) -> Simplified:
    """Replaces the steps of one module call by one step, where it is known what they make.

    Only calls of modules that call no others, read one value besides their own parameters, and
    hand on one.
    """
    sources = record.sources
    outer = set(record.scopes.values())
    readers: dict[int, int] = {}
    for step in found.steps:
        for _, value in step.inputs:
            readers[value] = readers.get(value, 0) + 1
    for value in found.outputs:
        readers[value] = readers.get(value, 0) + 1
    steps: list[Step] = []
    for scope, group in groupby(found.steps, key=lambda s: s.call.scope):
        own = list(group)
        name = _SPELT_OUT.get(" ".join(s.call.op for s in own))
        made = {s.call.outputs[0] for s in own}
        inside = sum(value in made for s in own for _, value in s.inputs)
        outside = [v for s in own for _, v in s.inputs if v not in made]
        data = [v for v in outside if v not in sources or sources[v].kind == "input"]
        hidden = sum(readers.get(v, 0) for v in made - {own[-1].call.outputs[0]})
        if name is None or scope in outer or len(set(data)) != 1 or hidden != inside:
            steps += own
            continue
        parameters = list(dict.fromkeys(v for v in outside if v not in data))
        last = own[-1].call
        last.op = name
        slots = ("weight", "bias") if len(parameters) <= 2 else ("parameter",) * len(parameters)
        inputs = [("input", data[0]), *zip(slots, parameters, strict=False)]
        steps.append(Step(last, inputs))
    return Simplified(steps, found.outputs, found.used)
