"""Timing several ways of one computation against each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypergen._utils.threads import one_thread


@dataclass(frozen=True)
class Timing:
    """Seconds of processor time of one way.

    Attributes:
        minimum: The least disturbed run.
        median: The typical run.
        runs: Number of runs.
    """

    minimum: float
    median: float
    runs: int


def interleave(
    ways: Mapping[str, Callable[[], Any]], *, runs: int = 15, warmup: int = 2
) -> dict[str, Timing]:
    """Times several ways in turns, in one process on one thread.

    In turns, so that a busy moment of the machine hits all of them; processor time, so that other
    processes do not count.

    Args:
        ways: Name → function without arguments.
        runs: Timed calls of each.
        warmup: Calls before.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with one_thread():
        for _ in range(warmup):
            for way in ways.values():
                way()
        for _ in range(runs):
            for name, way in ways.items():
                start = time.process_time()
                way()
                seconds[name].append(time.process_time() - start)
    return {n: Timing(min(s), statistics.median(s), len(s)) for n, s in seconds.items()}


def row(
    case: str,
    ours: Timing,
    reference: Timing,
    bound: Timing | None,
) -> dict[str, Any]:
    """One line of a benchmark in seconds (minima, with the medians beside them)."""
    return {
        "case": case,
        "metric": "s",
        "ours": ours.minimum,
        "reference": reference.minimum,
        "ratio": reference.minimum / ours.minimum,
        "bound": None if bound is None else bound.minimum,
        "over_bound": None if bound is None else ours.minimum / bound.minimum,
        "median": {
            "ours": ours.median,
            "reference": reference.median,
            "ratio": reference.median / ours.median,
            "bound": None if bound is None else bound.median,
        },
        "runs": ours.runs,
    }
