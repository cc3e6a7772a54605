"""`hypergen zoo info`: what a zoo holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen.zoo.looking.info import LIMIT, describe
from hypergen.zoo.store import Zoo


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    parser.add_argument("zoo", metavar="DIR", help="folder of the zoo")
    parser.add_argument("--report", metavar="DIR", help="folder for an HTML report with figures")
    parser.add_argument(
        "--limit",
        metavar="N",
        type=int,
        default=LIMIT,
        help=f"most checkpoints of an architecture that are compared (default {LIMIT})",
    )
    parser.add_argument(
        "--seed", metavar="S", type=int, default=0, help="of the sample, where there are more"
    )


def info_command(args: argparse.Namespace) -> dict[str, Any]:
    """Describes a zoo, and writes the report if asked for.

    Args:
        args: `zoo`, `report` (folder or None), `limit`, `seed`, `json`.

    Returns:
        The object of `ZooInfo.to_dict`.

    Raises:
        RunError: The zoo is missing or damaged.
        UsageError: The report would be written into the zoo.
    """
    zoo = Zoo(args.zoo)
    root = zoo.folder.resolve()
    if args.report is not None and Path(args.report).resolve().is_relative_to(root):
        raise UsageError("--report cannot lie in the zoo, whose files are all accounted for")
    info = describe(zoo, limit=args.limit, seed=args.seed)
    if args.json is None:
        print(info)
    if args.report is not None:
        from hypergen.zoo.looking.report import write_report

        path = write_report(args.report, info)
        if args.json is None:
            print(f"report: {path}")
    return info.to_dict()
