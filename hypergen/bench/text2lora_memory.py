"""Peak memory of one training step, each way in a process of its own.

`python -m hypergen.bench.text2lora_memory WAY SIZES` prints the peak in MiB; SIZES is JSON.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from hypergen._utils.errors import RunError
from hypergen._utils.threads import one_thread
from hypergen.bench.text2lora_step import Sizes, Step

BUILD = "build"  # the way that takes no step


def peak_mib() -> float:
    """Most memory that this process has held at once, in MiB."""
    status = Path("/proc/self/status")
    # Linux counts the parent's peak too in `ru_maxrss` of a process started by vfork.
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if found:
        return int(found[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def measure(way: str, sizes: Sizes) -> float:
    """Peak of a fresh process that builds everything and takes one step, in MiB.

    Args:
        way: One of `text2lora_step.WAYS`, or `BUILD`.
        sizes: The shapes.

    Raises:
        RunError: The process failed; says how.
    """
    command = [sys.executable, "-m", __name__, way, json.dumps(asdict(sizes))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"the process that measures the memory of {way!r} failed: {reason}")
    return float(done.stdout)


def main(way: str, sizes: str) -> None:
    """Builds, steps and prints the peak."""
    with one_thread():
        step = Step(Sizes(**json.loads(sizes)))
        if way != BUILD:
            step.way(way)()
    print(peak_mib())


if __name__ == "__main__":
    main(*sys.argv[1:])
