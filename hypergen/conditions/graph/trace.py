"""`trace`: any module → `ModuleGraph`."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from hypergen._utils.errors import ConditionError
from hypergen.conditions.graph.build import build_graph
from hypergen.conditions.graph.cache import CACHE, architecture_key
from hypergen.conditions.graph.fallbacks import record_export, record_fx
from hypergen.conditions.graph.graph import ModuleGraph
from hypergen.conditions.graph.guess import guesses
from hypergen.conditions.graph.inputs import Example, as_example
from hypergen.conditions.graph.records import Record
from hypergen.conditions.graph.tracer import TraceError, record_dispatch

Method = Literal["auto", "dispatch", "export", "fx"]
METHODS: tuple[Method, ...] = ("auto", "dispatch", "export", "fx")


def trace(
    module: nn.Module, example: Any = None, *, method: Method = "auto", cache: bool = True
) -> ModuleGraph:
    """Makes the graph of a network without autograd and without computing anything.

    The forward runs on tensors that have shapes and no numbers, so that frozen networks, wrapped
    ones (PEFT), and those on the meta device, of any size, are traced alike; the module stays as
    it is. What an evaluation does not reach (auxiliary heads) is looked for as in training.

    Args:
        module: The network.
        example: What to call it with: a tensor, a shape, a tuple of those (one for each positional
            argument) or a dictionary by argument. Guessed where it is None: for models of
            transformers from their config, else from the first layer.
        method: `auto` follows the forward, falls back to `torch.export` and then to `torch.fx`;
            or one of these alone.
        cache: Whether to return the graph of an earlier call for an equal architecture.

    Raises:
        ConditionError: The network cannot be traced; the message says which call failed and what
            to pass.
    """
    if not isinstance(module, nn.Module):
        raise ConditionError(f"a graph is made of an nn.Module, not of a {type(module).__name__}")
    if method not in METHODS:
        raise ConditionError(f"unknown method {method!r}: choose from {', '.join(METHODS)}")
    _check_ready(module)
    given = None if example is None else as_example(example, module)
    key = architecture_key(module, given, method) if cache else None
    if key is not None and (found := CACHE.get(key)) is not None:
        return found
    graph = _trace(module, given, method)
    if key is not None:
        CACHE.put(key, graph)
    return graph


def _check_ready(module: nn.Module) -> None:
    lazy = [
        name
        for name, parameter in module.named_parameters()
        if isinstance(parameter, nn.parameter.UninitializedParameter)
    ]
    if lazy:
        raise ConditionError(
            f"{type(module).__name__} has lazy parameters without a shape ({', '.join(lazy[:3])}): "
            "call it once, so that they get one"
        )


def _trace(module: nn.Module, given: Example | None, method: Method) -> ModuleGraph:
    examples = [given] if given is not None else list(guesses(module))
    failures: list[str] = []
    # An example that was given and does not fit is an error, not a reason to try other ways.
    is_limit = given is None
    if method in ("auto", "dispatch"):
        for example in examples:
            try:
                return _dispatch(module, example)
            except TraceError as error:
                failures.append(f"{example.describe()}: {error}")
                is_limit = is_limit or error.is_limit
                if error.is_limit:
                    examples = [example]
    if method == "export" or (method == "auto" and is_limit):
        for example in examples[:1]:  # too slow to try with every guess
            try:
                return build_graph(module, record_export(module, example), example.describe())
            except TraceError as error:
                failures.append(f"torch.export, {example.describe()}: {error}")
    if method == "fx" or (method == "auto" and is_limit):
        try:  # runs nothing, and so needs no example
            return build_graph(module, record_fx(module))
        except TraceError as error:
            failures.append(f"torch.fx: {error}")
    raise ConditionError(_advice(module, given, bool(examples), failures))


def _dispatch(module: nn.Module, example: Example) -> ModuleGraph:
    graph = build_graph(module, record_dispatch(module, example), example.describe())
    if not graph.skipped:
        return graph
    try:
        record: Record = record_dispatch(module, example, training=True)
    except TraceError:
        return graph
    other = build_graph(module, record, example.describe())
    return other if len(other.skipped) < len(graph.skipped) else graph


def _advice(module: nn.Module, given: Example | None, guessed: bool, failures: list[str]) -> str:
    name = type(module).__name__
    shown = "; ".join(dict.fromkeys(failures[:4]))
    pass_one = (
        "pass example=, such as (1, 3, 224, 224) or {'input_ids': (1, 8)}; on the command line "
        "--input 1x3x224x224 or --input input_ids=1x8"
    )
    if given is not None:
        hint = "check that the module runs on such inputs, or pass others by example= (--input)"
    elif guessed:
        hint = f"the inputs were guessed: {pass_one}"
    else:
        return f"{name}: no example input could be guessed ({shown}); {pass_one}"
    return f"{name} could not be traced. {shown}. {hint}"
