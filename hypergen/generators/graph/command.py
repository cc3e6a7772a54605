"""`hypergen init`: weights for any architecture, from a graph hypernetwork."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hypergen._utils.errors import UsageError
from hypergen._utils.memory import peak_memory
from hypergen.conditions.graph import coverage, trace
from hypergen.conditions.graph.command import add_model_options, json_arguments
from hypergen.conditions.graph.inputs import parse_inputs
from hypergen.conditions.graph.models import resolve_model
from hypergen.generators.base import load
from hypergen.generators.graph.files import SHARD, write_weights
from hypergen.generators.graph.hypernetwork import GraphHypernetwork
from hypergen.generators.graph.initialise import check_roles, covered, unseen_roles

DTYPES = ("float32", "bfloat16", "float16")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    add_model_options(
        parser,
        ", as of `hypergen graph`",
        "the model's own start",
        "let parameters that cannot be generated keep the model's own start",
    )
    parser.add_argument(
        "--generator", metavar="RUN", required=True, help="run or folder of a graph hypernetwork"
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        required=True,
        help="file ….safetensors, or a folder that from_pretrained reads",
    )
    parser.add_argument(
        "--unseen",
        action="store_true",
        help="also generate parameters of roles that the generator was not trained with",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of the file; as the model's if not")
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="seed of the noise and of kept values"
    )
    parser.add_argument(
        "--shard-size",
        metavar="GB",
        type=float,
        default=SHARD / 1e9,
        help="largest file in a folder, in gigabytes",
    )


def _own_start(name: str, kwargs: dict[str, Any], seed: int) -> nn.Module:
    """The network with its own initial values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return resolve_model(name, kwargs, device="cpu")


def init_command(args: argparse.Namespace) -> dict[str, Any]:
    """Writes generated weights of a network, parameter by parameter.

    Args:
        args: `model`, `generator`, `out`, `kwargs`, `input`, `keep`, `no_strict`, `unseen`,
            `dtype`, `seed`, `shard_size`, `json`.

    Returns:
        {"files", "coverage", "seconds": {"load", "trace", "generate"}, "bytes", "peak_memory",
        "unseen"}; memory in bytes.

    Raises:
        UsageError: There is no such model, or an option is wrong.
        RunError: The run is missing, or holds another kind of generator.
        ConditionError: The network cannot be traced, or a parameter cannot be generated.
    """
    if args.shard_size <= 0:
        raise UsageError(f"--shard-size {args.shard_size:g}: give a size above 0, in gigabytes")
    start = time.perf_counter()
    generator = load(args.generator)
    if not isinstance(generator, GraphHypernetwork):
        raise UsageError(
            f"{args.generator} holds a {type(generator).__name__}, which takes no architectures: "
            "use `hypergen generate`, or name a graph hypernetwork"
        )
    kwargs = json_arguments(args.kwargs)
    model = resolve_model(args.model, kwargs)
    loaded = time.perf_counter()
    graph = trace(model, parse_inputs(args.input, model))
    report = coverage(model, graph=graph, keep=args.keep, strict=not args.no_strict)
    rules = covered(graph, report)
    check_roles(generator, rules, args.unseen)
    traced = time.perf_counter()
    files = write_weights(
        args.out,
        model,
        generator,
        graph,
        report,
        build=lambda: _own_start(args.model, kwargs, args.seed),
        dtype=None if args.dtype is None else getattr(torch, args.dtype),
        shard=int(args.shard_size * 1e9),
        seed=args.seed,
    )
    done = time.perf_counter()
    result: dict[str, Any] = {
        "model": report.name,
        "files": [str(file) for file in files],
        "coverage": report.to_dict(),
        "unseen": sorted(unseen_roles(generator, rules)),
        "seconds": {"load": loaded - start, "trace": traced - loaded, "generate": done - traced},
        "bytes": sum(Path(file).stat().st_size for file in files),
        "peak_memory": peak_memory(),
    }
    if args.json is None:
        seconds = result["seconds"]
        print(report.table())
        print(
            f"wrote {', '.join(result['files'])}: {result['bytes'] / 1e9:.3f} GB; traced in "
            f"{seconds['trace']:.2f} s, generated and written in {seconds['generate']:.2f} s; peak "
            f"memory of the process {result['peak_memory'] / 1e9:.2f} GB"
        )
    return result
