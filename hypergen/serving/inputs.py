"""What the options of `hypergen generate` name, read: sentences, demonstrations, documents."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hypergen._utils.errors import UsageError


def read_inputs(args: argparse.Namespace) -> dict[str, Any]:
    """The raw inputs that the options name, as keyword arguments of `Generator.generate`.

    Raises:
        UsageError: None or several kinds given, or a file is missing or malformed.
    """
    given = [k for k in ("text", "demos", "document") if getattr(args, k, None) is not None]
    if len(given) != 1:
        raise UsageError("give one of --text, --demos and --document")
    if given == ["demos"]:
        return {"demos": [read_demos(args.demos)]}
    if given == ["document"]:
        document = _read(args.document)
        if not document.strip():
            raise UsageError(f"{args.document} is empty: put the document there")
        return {"document": [document]}
    texts = []
    for text in [args.text] if isinstance(args.text, str) else args.text:
        if text == "-":
            lines = [line.strip() for line in sys.stdin.read().splitlines()]
            texts += [line for line in lines if line]
            if not any(lines):
                raise UsageError("--text - found no sentence on standard input")
        else:
            texts.append(text)
    return {"text": texts}


def read_demos(path: str | Path) -> list[dict[str, Any]]:
    """Reads demonstrations, one JSON object a line.

    Raises:
        UsageError: The file is missing or empty, or a line is no JSON object; names the line.
    """
    demos = []
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            demo = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}: line {number} is not valid JSON: {error}") from error
        if not isinstance(demo, dict):
            raise UsageError(f"{path}: line {number} holds no JSON object")
        demos.append(demo)
    if not demos:
        raise UsageError(f"{path} is empty: put one demonstration a line there")
    return demos


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text: {error}") from error
