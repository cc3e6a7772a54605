"""`hypergen zoo import SOURCE… --out DIR`: a zoo of checkpoints that exist."""

from __future__ import annotations

import argparse
from typing import Any


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `hypergen zoo import`."""
    from hypergen.zoo.importing.sources import KINDS

    add = parser.add_argument
    add(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="folder or file with checkpoints, or .txt file with a hub name a line",
    )
    add("--out", metavar="DIR", required=True, help="zoo to write or to add to")
    add("--kind", choices=KINDS, default="auto", help="what to look for (default: all)")
    add("--map", metavar="FILE", help="metadata by path: YAML, JSON or JSONL")
    add("--name", metavar="NAME", help="name of the zoo (default: that of its folder)")
    add("--licence", metavar="L", help="licence of the weights, such as an SPDX identifier")
    add("--strict", action="store_true", help="write nothing if any file would be skipped")


def import_command(args: argparse.Namespace) -> dict[str, Any]:
    """Imports and says what was taken, skipped and quarantined, and why.

    Args:
        args: Parsed options: `sources`, `out`, `kind`, `map`, `name`, `licence`, `strict`, `json`.

    Returns:
        The report; the exit code is 1 if no checkpoint was taken and none was there already.
    """
    from hypergen.zoo.importing.importer import import_zoo

    report = import_zoo(
        args.sources,
        args.out,
        kind=args.kind,
        mapping=args.map,
        name=args.name,
        licence=args.licence,
        strict=args.strict,
    )
    if args.json is None:
        print(report)
    return {**report.to_dict(), "exit_code": int(not report.of("taken", "quarantined", "known"))}
