"""Settings of torch for a block of code: one thread, no denormal numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch use one thread, and restores the number of threads.

    Sums of several threads come out differently by their number.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Lets this thread take numbers below the least normal one (1e-38 in float32) for zero.

    Gradients of samples that a network is sure of fall below it, and processors take many times as
    long for them. The setting is restored; where the processor has none, nothing changes.
    """
    import torch

    before = float(torch.tensor(1e-39) * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
