"""What a command shows of a finished evaluation."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Result(Protocol):
    """An evaluation that has a table, a JSON form and files."""

    def to_table(self) -> str:
        """For a terminal."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""

    def save(self, folder: str | Path) -> Sequence[Path]:
        """Writes numbers and pictures."""


def printed(args: argparse.Namespace, found: Result) -> dict[str, Any]:
    """Prints the table, unless JSON is asked for; writes the files, if they are.

    Args:
        args: `json` and `report` (folder or None).
        found: The evaluation.

    Returns:
        Its JSON form.
    """
    if args.json is None:
        print(found.to_table())
    if args.report is not None:
        for path in found.save(args.report):
            if args.json is None:
                print(f"report: {path}")
    return found.to_dict()
