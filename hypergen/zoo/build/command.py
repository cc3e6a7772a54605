"""`hypergen zoo build`: from a YAML file to a folder of checkpoints."""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from hypergen._utils.recipes import find_recipe
from hypergen.zoo.build.build import build_zoo
from hypergen.zoo.build.engine import ENGINES
from hypergen.zoo.build.networks import NetworkZoo
from hypergen.zoo.build.recipe import read_recipe
from hypergen.zoo.store import Zoo
from hypergen.zoo.store.paths import part_numbers


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `hypergen zoo build`; all others belong to the recipe."""
    add = parser.add_argument
    add("-c", "--config", metavar="FILE", required=True, help="recipe: a YAML file, or its name")
    add("--out", metavar="DIR", help="folder to write or to go on with (default: runs/RECIPE)")
    add("--engine", metavar="NAME", default="local", help=f"{' or '.join(ENGINES)}")
    add("--workers", metavar="N", type=int, help="jobs at once (default: one a processor)")
    add("--address", metavar="A", help="Ray cluster to join (default: start one here)")
    options = " ".join(f"--{name}" for name in inspect.signature(NetworkZoo).parameters)
    parser.epilog = (
        "All values of the recipe can be changed, such as --steps 100 --network.hidden '[8]'. "
        f"Those of NetworkZoo: {options}"
    )


def build_command(args: argparse.Namespace) -> dict[str, Any]:
    """Builds a zoo and says what it holds.

    Args:
        args: Parsed options: `config`, `out`, `engine`, `workers`, `address`, `json`, and the words
            in `rest` that belong to the recipe.

    Returns:
        The summary; see `summary`.
    """
    path = find_recipe(args.config, "zoo_*")
    recipe = read_recipe(path, args.rest)
    out = Path(args.out) if args.out else Path("runs") / path.stem
    before = set(part_numbers(out))
    start = time.monotonic()
    try:
        zoo = build_zoo(recipe, out, args.engine, args.workers, args.address)
    except KeyboardInterrupt:
        done = len(part_numbers(out))
        print(
            f"{out}: {done} of {recipe.jobs()} parts are finished; the same command goes on",
            file=sys.stderr,
        )
        raise
    seconds = time.monotonic() - start
    built = sum(recipe.models(job) for job in range(recipe.jobs()) if job not in before)
    result = summary(zoo, built, seconds)
    if args.json is None:
        print(table(result))
    return result


def summary(zoo: Zoo, built: int, seconds: float) -> dict[str, Any]:
    """What a zoo holds, and how fast it came about.

    Args:
        zoo: The zoo.
        built: Networks that were trained just now.
        seconds: Time that took.

    Returns:
        `zoo`, `name`, `checkpoints`, `runs`, `tasks`, `architectures`, `quarantined`, `metrics` of
        each run's last checkpoint (split → metric → `mean`, `min`, `max`), `built`, `seconds` and
        `models_per_second`.
    """
    last = zoo.select(step="last")
    metrics: dict[str, dict[str, Any]] = {}
    for split, name in sorted({(s, n) for row in last for s, m in row.metrics.items() for n in m}):
        values = last.metric(split, name)
        values = values[np.isfinite(values)]
        if values.size:
            entry = {"mean": values.mean(), "min": values.min(), "max": values.max()}
            metrics.setdefault(split, {})[name] = {k: float(v) for k, v in entry.items()}
    return {
        "zoo": str(zoo.folder),
        "name": zoo.header.name,
        "checkpoints": len(zoo),
        "runs": len({row.run for row in zoo}),
        "tasks": len({row.task for row in zoo}),
        "architectures": len(zoo.architectures),
        "quarantined": len(zoo.quarantined),
        "metrics": metrics,
        "built": built,
        "seconds": seconds,
        "models_per_second": built / seconds if built else 0.0,
    }


def table(result: dict[str, Any]) -> str:
    """A summary as text."""
    counts = (
        f"{result[key]:,} {key if result[key] != 1 else key.removesuffix('s')}"
        for key in ("checkpoints", "runs", "tasks", "architectures")
    )
    lines = [f"{result['zoo']}: {', '.join(counts)}"]
    if result["quarantined"]:
        lines.append(f"quarantined (NaN or infinity): {result['quarantined']:,}")
    if result["metrics"]:
        lines += ["", f"{'last checkpoints':<24}{'mean':>10}{'min':>10}{'max':>10}"]
    for split, by_name in result["metrics"].items():
        for name, values in by_name.items():
            numbers = "".join(f"{values[key]:>10.4g}" for key in ("mean", "min", "max"))
            lines.append(f"{split + ' ' + name:<24}{numbers}")
    speed = f"{result['models_per_second']:.3g} models/s"
    built = f"{result['built']:,} networks in {result['seconds']:.1f} s, {speed}"
    lines += ["", built if result["built"] else "nothing was left to build"]
    return "\n".join(lines)
