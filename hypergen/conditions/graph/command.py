"""`hypergen graph`: a network as a graph, and what of it can be given weights."""

from __future__ import annotations

import argparse
import base64
import json
from html import escape
from pathlib import Path
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen._utils.figures import CSS
from hypergen._utils.io import write_json, write_text
from hypergen.conditions.graph.coverage import CoverageReport, coverage
from hypergen.conditions.graph.data import save_data
from hypergen.conditions.graph.draw import draw
from hypergen.conditions.graph.examples import EXAMPLES
from hypergen.conditions.graph.graph import ModuleGraph
from hypergen.conditions.graph.inputs import parse_inputs
from hypergen.conditions.graph.models import resolve_model
from hypergen.conditions.graph.trace import METHODS, trace

REPORT_FILE, PICTURE_FILE, COVERAGE_FILE = "report.html", "graph.png", "coverage.json"
GRAPH_FILE = "graph.safetensors"


def add_model_options(
    parser: argparse.ArgumentParser, examples: str, keep: str, no_strict: str
) -> None:
    """Adds MODEL, and the options of every command that traces one.

    Args:
        parser: The parser.
        examples: Which examples there are.
        keep: What happens to parameters that are kept.
        no_strict: What `--no-strict` does.
    """
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder with the config of a transformers model or its name on the hub; "
        f"package.module:Class; or an example{examples}",
    )
    parser.add_argument(
        "--kwargs", metavar="JSON", help="arguments of the class, or changes to the config"
    )
    parser.add_argument(
        "--input",
        metavar="[NAME=]SIZES[:DTYPE]",
        action="append",
        default=[],
        help="an input, such as 1x3x224x224 or input_ids=1x8:int64; repeat it for each argument; "
        "guessed when left out",
    )
    parser.add_argument(
        "--keep",
        metavar="GLOB",
        action="append",
        default=[],
        help=f"parameters that keep {keep}, such as 'head.*'; may be repeated",
    )
    parser.add_argument("--no-strict", action="store_true", help=no_strict)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    add_model_options(
        parser,
        f": {', '.join(EXAMPLES)}",
        "their values",
        "list what cannot be given weights instead of failing",
    )
    parser.add_argument("--method", choices=METHODS, default="auto", help="how to trace it")
    parser.add_argument(
        "--report", metavar="DIR", help="folder for a page, the picture, the graph and the table"
    )


def graph_command(args: argparse.Namespace) -> dict[str, Any]:
    """Traces a network and prints its coverage.

    Args:
        args: `model`, `kwargs`, `input`, `keep`, `no_strict`, `method`, `report`, `json`.

    Returns:
        {"graph": …, "coverage": …}, as `ModuleGraph.summary` and `CoverageReport.to_dict`.

    Raises:
        UsageError: There is no such model, or an option is wrong.
        ConditionError: It cannot be traced, or a parameter cannot be given weights.
    """
    model = resolve_model(args.model, json_arguments(args.kwargs))
    graph = trace(model, parse_inputs(args.input, model), method=args.method)
    report = coverage(model, graph=graph, keep=args.keep, strict=False)
    if args.json is None:
        print(_text(graph, report))
    if args.report is not None:
        path = write_report(args.report, graph, report)
        if args.json is None:
            print(f"report: {path}")
    if not args.no_strict:
        coverage(model, graph=graph, keep=args.keep)
    return {"graph": graph.summary(), "coverage": report.to_dict()}


def json_arguments(text: str | None) -> dict[str, Any]:
    """What `--kwargs` holds.

    Raises:
        UsageError: It is no JSON object.
    """
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--kwargs is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError("--kwargs is a JSON object, such as '{\"width\": 64}'")
    return found


def _text(graph: ModuleGraph, report: CoverageReport) -> str:
    summary = graph.summary()
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary["nodes"].items())
    ops = ", ".join(f"{op} {count}" for op, count in summary["operations"].items())
    blocks = [f"{b['copies']} × {b['nodes']} nodes" for b in summary["blocks"]]
    return "\n".join(
        [
            f"{graph.name} called with {graph.example or 'nothing'} (traced by {graph.method})",
            f"nodes: {len(graph)} ({kinds}); edges: {len(graph.edges)}",
            f"operations: {ops}",
            f"repeated blocks: {', '.join(blocks) or 'none'}",
            report.table(),
        ]
    )


def write_report(folder: str | Path, graph: ModuleGraph, report: CoverageReport) -> Path:
    """Writes a page with the picture and the table, and both as files of their own.

    Args:
        folder: Where to write; made if needed.
        graph: The graph.
        report: Its coverage.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--report {folder} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    picture, hidden = draw(graph)
    (folder / PICTURE_FILE).write_bytes(picture)
    save_data(folder / GRAPH_FILE, graph)
    write_json(folder / COVERAGE_FILE, {"graph": graph.summary(), "coverage": report.to_dict()})
    return write_text(folder / REPORT_FILE, to_html(graph, report, picture, hidden))


def to_html(graph: ModuleGraph, report: CoverageReport, picture: bytes, hidden: int) -> str:
    """The page."""
    rows = "".join(
        f"<tr><td>{escape(p.name)}</td><td>{'×'.join(map(str, p.shape)) or 'scalar'}</td>"
        f"<td>{escape(p.role)}</td><td>{'' if p.fan_in is None else p.fan_in}</td>"
        f"<td>{p.status}</td><td>{escape(p.reason or ', '.join(p.ties))}</td></tr>"
        for p in report.parameters
    )
    encoded = base64.b64encode(picture).decode("ascii")
    left_out = (
        f"{hidden:,} nodes are left out: further repetitions of blocks that are drawn first."
        if hidden
        else "All nodes are drawn."
    )
    heads = "".join(
        f"<th>{h}</th>" for h in ("parameter", "shape", "role", "fan in", "status", "note")
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(graph.name)}</title><style>{CSS}</style></head><body>",
            f"<h1>{escape(graph.name)}</h1>",
            f"<pre>{escape(_text(graph, report))}</pre>",
            "<h2>Graph</h2>",
            f'<figure><img alt="graph of {escape(graph.name)}" '
            f'src="data:image/png;base64,{encoded}"><figcaption>Data flows down; grey boxes are '
            f"parameters. {left_out}</figcaption></figure>",
            "<h2>Parameters</h2>",
            f'<div class="wide"><table><thead><tr>{heads}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>",
            "</body></html>",
            "",
        ]
    )
