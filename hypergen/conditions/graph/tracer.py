"""Runs a forward without numbers and without autograd, and writes down what it does."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from hypergen.conditions.graph.inputs import Example
from hypergen.conditions.graph.modes import DispatchMode, FunctionMode, ReadsValueError
from hypergen.conditions.graph.recorder import Recorder, tensors_in
from hypergen.conditions.graph.records import Record


class TraceError(Exception):
    """A forward could not be followed.

    Attributes:
        path: Path of the module whose forward was running.
        doing: The last operation that began, with the shapes of its arguments.
        reason: What went wrong there.
        is_limit: Whether the trace is to blame, and not the network or its inputs.
    """

    def __init__(
        self, path: str, kind: str, doing: str, reason: str, is_limit: bool = False
    ) -> None:
        where = f"in {path!r} ({kind})" if path else f"in {kind}"
        last = f", last operation {doing}" if doing else ""
        super().__init__(f"{where}{last}: {reason}")
        self.path, self.doing, self.reason, self.is_limit = path, doing, reason, is_limit


def record_dispatch(module: nn.Module, example: Example, training: bool = False) -> Record:
    """Runs the forward under the two modes.

    No number of the module is read or changed: parameters are stood in for by tensors on the meta
    device, so it does not matter where they are, whether they are frozen, or whether they have
    memory at all.

    Args:
        module: The network.
        example: What to call it with.
        training: Whether to run as in training, where some networks have further outputs.

    Raises:
        TraceError: The forward failed, or read a number that there is none of.
    """
    recorder = Recorder(module)
    args, kwargs = example.map(recorder.input)
    functions, kernels = FunctionMode(recorder), DispatchMode(recorder)
    paths = {id(m): (name, type(m).__name__) for name, m in module.named_modules()}
    try:
        with (
            _prepared(module, training),
            _following(recorder, paths),
            torch.no_grad(),
            kernels,
            functions,
        ):
            out = module(*args, **kwargs)
    except ReadsValueError as error:
        reason = (
            f"the forward reads numbers ({error}) that a trace without compute does not have; "
            "control flow that depends on them cannot be followed"
        )
        raise _error(recorder, module, reason, is_limit=True) from error
    except NotImplementedError as error:  # a kernel without a meta implementation
        raise _error(recorder, module, f"{error}", is_limit=True) from error
    except Exception as error:
        raise _error(recorder, module, f"{type(error).__name__}: {error}") from error
    found = (recorder.value(tensor) for tensor in tensors_in(out))
    record = recorder.record
    record.outputs = list(dict.fromkeys(v for v in found if v is not None))
    return record


def _error(
    recorder: Recorder, module: nn.Module, reason: str, is_limit: bool = False
) -> TraceError:
    path = recorder.path
    kind = type(module.get_submodule(path)).__name__
    return TraceError(path, kind, recorder.doing, " ".join(reason.split())[:600], is_limit)


@contextmanager
def _prepared(module: nn.Module, training: bool) -> Iterator[None]:
    """Sets the mode of all modules by their flag, and keeps random states as they are."""
    flags = [(m, m.training) for m in module.modules()]
    trained = [p for p in module.parameters() if p.requires_grad]
    fast = torch.backends.mha.get_fastpath_enabled()
    state = random.getstate()
    try:
        # One fused kernel for a whole encoder layer would hide its structure.
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            random.seed(0)
            for m, _ in flags:
                m.training = training  # `train()` may be overridden to do more
            for p in trained:  # torch multiplies by other kernels where a gradient is wanted
                p.requires_grad_(False)
            yield
    finally:
        random.setstate(state)
        torch.backends.mha.set_fastpath_enabled(fast)
        for m, flag in flags:
            m.training = flag
        for p in trained:
            p.requires_grad_(True)


@contextmanager
def _following(recorder: Recorder, paths: dict[int, tuple[str, str]]) -> Iterator[None]:
    """Keeps the recorder's path at the module whose forward runs."""
    stack = [("", 0)]
    thread = threading.get_ident()
    count = 0

    def enter(module: nn.Module, args: Any) -> None:
        nonlocal count
        if threading.get_ident() != thread or id(module) not in paths:
            return
        count += 1
        recorder.record.scopes[count] = stack[-1][1]
        stack.append((paths[id(module)][0], count))
        recorder.path, recorder.scope = stack[-1]

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        if threading.get_ident() == thread and id(module) in paths:
            stack.pop()
            recorder.path, recorder.scope = stack[-1]

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
