"""Recurrent layers as operations: one for each layer and direction, with its own weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hypergen.conditions.graph.recorder import Recorder, blank

_WEIGHTS = ("weight_ih", "weight_hh")
_BIASES = ("bias_ih", "bias_hh")


def record_recurrent(recorder: Recorder, op: str, args: tuple[Any, ...]) -> Any:
    """Writes down a call of `torch.lstm`, `gru`, `rnn_tanh` or `rnn_relu`.

    Args:
        recorder: Where to.
        op: Which of them.
        args: Its arguments, padded (input, hidden, weights, …) or packed (data, sizes, hidden,
            weights, …).

    Returns:
        What the function returns, without numbers.
    """
    packed = isinstance(args[3], (list, tuple))
    x, states, weights = (args[0], args[2], args[3]) if packed else args[:3]
    has_biases, layers = args[4 if packed else 3], args[5 if packed else 4]
    bidirectional = args[8 if packed else 7]
    batch_first = not packed and args[8]
    states = [states] if isinstance(states, Tensor) else list(states)
    directions = 2 if bidirectional else 1
    count = len(weights) // (layers * directions)
    slots = [*_WEIGHTS, *(_BIASES if has_biases else ()), "weight_hr"][:count]
    hidden = states[0].shape[-1]
    shape = (*x.shape[:-1], hidden)
    before = [x]
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            start = (layer * directions + direction) * count
            own = list(zip(slots, weights[start : start + count], strict=True))
            out = blank(shape, x.dtype)
            given = [("hidden", state) for state in states]
            recorder.call(op, [*(("input", t) for t in before), *given, *own], [out])
            outputs.append(out)
        before = outputs
    result = blank((*x.shape[:-1], hidden * directions), x.dtype)
    recorder.call("cat", [("tensors", t) for t in before], [result])
    if not packed and x.dim() == 3:
        rows = x.shape[0 if batch_first else 1]
    else:
        rows = states[0].shape[1]
    last = []
    for state in states:
        end = blank((layers * directions, rows, state.shape[-1]), x.dtype)
        recorder.call("select", [("self", result)], [end])
        last.append(end)
    return (result, *last)


def record_cell(recorder: Recorder, op: str, args: tuple[Any, ...]) -> Any:
    """Writes down a call of `torch.lstm_cell`, `gru_cell`, `rnn_tanh_cell` or `rnn_relu_cell`."""
    x, state, *weights = args
    states = [state] if isinstance(state, Tensor) else list(state)
    slots = (*_WEIGHTS, *_BIASES)
    inputs = [("input", x), *(("hidden", s) for s in states)]
    own = [(s, w) for s, w in zip(slots, weights, strict=False) if w is not None]
    outputs = [blank(s.shape, x.dtype) for s in states]
    recorder.call(op, [*inputs, *own], outputs)
    return outputs[0] if isinstance(state, Tensor) else tuple(outputs)


def packed(func: Any, args: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """What `pack_padded_sequence` returns: data without numbers, and the true sizes of its steps.

    Args:
        func: The kernel.
        args: The padded sequences, their lengths (known numbers), and whether the first axis is
            the batch.
    """
    x, lengths, *rest = args
    thin, sizes = func(torch.empty(*x.shape[:2], 1), lengths, *rest)
    return blank((thin.shape[0], *x.shape[2:]), x.dtype), sizes
