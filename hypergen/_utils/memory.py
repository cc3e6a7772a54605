"""Memory that ran out, told as an error that says what to lower; and how much was held."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypergen._utils.errors import HypergenError, RunError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on an accelerator or not."""
    # By name: this module is imported before torch is.
    words = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "not enough memory" in words)
        or (isinstance(error, RuntimeError) and "out of memory" in words)
    )


@contextmanager
def memory_advice(what: str, advice: str) -> Iterator[None]:
    """Turns running out of memory inside into an error of one line.

    Args:
        what: What ran, e.g. `"training"`.
        advice: What saves memory, to follow "out of memory: ".

    Raises:
        RunError: Memory ran out inside; other errors pass.
    """
    try:
        yield
    except HypergenError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(f"{what} ran out of memory: {advice}") from error


def peak_memory() -> int:
    """Most memory that this process has held at a time, in bytes; 0 where it is not known."""
    status = Path("/proc/self/status")
    # Linux counts the parent's peak too in `ru_maxrss` of a process started by vfork.
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if found:
        return int(found[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
