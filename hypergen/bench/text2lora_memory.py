"""Peak memory of one training step, each way in a process of its own.

`python -m hypergen.bench.text2lora_memory WAY SIZES` prints the peak in MiB; SIZES is JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from hypergen._utils.threads import one_thread
from hypergen.bench.peak import measure_peak, peak_mib
from hypergen.bench.text2lora_step import Sizes, Step

BUILD = "build"  # the way that takes no step


def measure(way: str, sizes: Sizes) -> float:
    """Peak of a fresh process that builds everything and takes one step, in MiB.

    Args:
        way: One of `text2lora_step.WAYS`, or `BUILD`.
        sizes: The shapes.

    Raises:
        RunError: The process failed; says how.
    """
    return measure_peak("hypergen.bench.text2lora_memory", way, json.dumps(asdict(sizes)))


def main(way: str, sizes: str) -> None:
    """Builds, steps and prints the peak."""
    with one_thread():
        step = Step(Sizes(**json.loads(sizes)))
        if way != BUILD:
            step.way(way)()
    print(peak_mib())


if __name__ == "__main__":
    main(*sys.argv[1:])
