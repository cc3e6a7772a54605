"""Peak memory of a computation, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from hypergen._utils.errors import RunError
from hypergen._utils.memory import peak_memory


def peak_mib() -> float:
    """Most memory that this process has held at once, in MiB."""
    return peak_memory() / (1 << 20)


def measure_peak(module: str, way: str, *arguments: str) -> float:
    """Peak of a fresh process that runs a module, in MiB.

    Args:
        module: Name of the module; run as a program it prints `peak_mib()` and nothing else.
        way: Its first argument, which messages name.
        *arguments: Further ones.

    Raises:
        RunError: The process failed; says how.
    """
    command = [sys.executable, "-m", module, way, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"the process that measures the memory of {way!r} failed: {reason}")
    return float(done.stdout)
