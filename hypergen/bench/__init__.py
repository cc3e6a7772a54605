"""`hypergen bench`: speed against the naive way, a peer and the physical limit.

Every benchmark is a module of this package with a function `run() -> dict`, which returns
`{"name", "rows": [{"case", "metric", "ours", "reference", "ratio", "bound"}]}`.
"""

from __future__ import annotations

import argparse
import importlib
import platform
from typing import Any

from hypergen._utils.errors import UsageError, did_you_mean

BENCHMARKS = ("core", "zoo", "text2lora", "document", "diffusion", "graph")


def run_benchmark(name: str) -> dict[str, Any]:
    """Runs one benchmark.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in BENCHMARKS:
        raise UsageError(f"no benchmark {name!r}.{did_you_mean(name, BENCHMARKS)}")
    result: dict[str, Any] = importlib.import_module(f"hypergen.bench.{name}").run()
    import torch

    machine = {"processor": platform.machine(), "torch": torch.__version__, "threads": 1}
    return {**result, "machine": machine}


def table(result: dict[str, Any]) -> str:
    """A benchmark's rows as text."""
    rows = result["rows"]
    width = max(len(row["case"]) for row in rows)
    lines = [
        f"{'case':<{width}}  {'ours':>10}  {'reference':>10}  {'ratio':>6}  {'over bound':>10}"
    ]
    for row in rows:
        over = row.get("over_bound")
        ours, reference = (_quantity(row[key], row["metric"]) for key in ("ours", "reference"))
        lines.append(
            f"{row['case']:<{width}}  {ours:>10}  {reference:>10}  {row['ratio']:>6.2f}  "
            f"{'' if over is None else format(over, '.2f'):>10}"
        )
    return "\n".join(lines)


def _quantity(value: float, metric: str) -> str:
    return f"{value * 1e3:.2f} ms" if metric == "s" else f"{value:.1f} {metric}"


def bench_command(args: argparse.Namespace) -> dict[str, Any]:
    """`hypergen bench [NAME]`: one benchmark, or all of them."""
    if args.name:
        result = run_benchmark(args.name)
        results = [result]
    else:
        results = [run_benchmark(name) for name in BENCHMARKS]
        result = {"name": "all", "rows": [row for r in results for row in r["rows"]]}
    if args.json is None:
        for one in results:
            print(f"{one['name']}: minimum of processor time, one thread, runs interleaved")
            print(table(one))
    return result
