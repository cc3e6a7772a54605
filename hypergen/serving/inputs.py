"""What the options of `hypergen generate` name, read: sentences, demonstrations, documents."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen.generators.storage import takes_nothing
from hypergen.serving.documents import documents


def read_inputs(args: argparse.Namespace) -> dict[str, Any]:
    """The raw inputs that the options name, as keyword arguments of `Generator.generate`.

    Of documents, which may be large, it is `TextDocument`s, for `generate_from_documents`. Of a
    generator without a condition it is nothing.

    Sentences and demonstrations may be given together, for a generator that reads both: one of each
    for every network, or one sentence for several files, or one file for several sentences.

    Raises:
        UsageError: None given, kinds or numbers of inputs that do not go together, or a file is
            missing or malformed.
    """
    given = [k for k in ("text", "demos", "document") if getattr(args, k, None) is not None]
    if not given and takes_nothing(args.run):
        return {}
    if not given or ("document" in given and len(given) > 1):
        further = "; only --text and --demos go together" if given else ""
        raise UsageError(f"give one of --text, --demos and --document{further}")
    if given == ["document"]:
        return {"document": documents(args.document)}
    if getattr(args, "as_one", False):
        raise UsageError("--as-one reads several files of --document into one adapter: give those")
    inputs: dict[str, list[Any]] = {}
    if "text" in given:
        inputs["text"] = _sentences(args.text)
    if "demos" in given:
        inputs["demos"] = [read_demos(path) for path in demo_files(args)]
    count = max(map(len, inputs.values()))
    for kind, rows in inputs.items():
        if len(rows) not in (1, count):
            other = next(k for k in inputs if k != kind)
            raise UsageError(
                f"{len(inputs[other])} --{other} and {len(rows)} --{kind} do not go together: give "
                "as many of each, or one of either"
            )
    return {kind: rows * (count // len(rows)) for kind, rows in inputs.items()}


def _sentences(given: str | list[str]) -> list[str]:
    texts = []
    for text in [given] if isinstance(given, str) else given:
        if text == "-":
            lines = [line.strip() for line in sys.stdin.read().splitlines()]
            texts += [line for line in lines if line]
            if not any(lines):
                raise UsageError("--text - found no sentence on standard input")
        else:
            texts.append(text)
    return texts


def demo_files(args: argparse.Namespace) -> list[str]:
    """The files of `--demos`, one for each network."""
    return [args.demos] if isinstance(args.demos, str) else list(args.demos)


def read_demos(path: str | Path) -> list[dict[str, Any]]:
    """Reads demonstrations, one JSON object a line with `input` and `output`.

    As in Super-NaturalInstructions, an output may be a list, of which the first counts; other keys
    are left alone.

    Raises:
        UsageError: The file is missing or empty, or a line is no JSON object with both fields as
            texts; names file, line and field.
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
        for field in ("input", "output"):
            _check_field(demo, field, f"{path}: line {number}: field {field!r}")
        demos.append(demo)
    if not demos:
        raise UsageError(
            f'{path} is empty: put one demonstration a line there, {{"input": "…", "output": "…"}}'
        )
    return demos


def _check_field(demo: dict[str, Any], field: str, where: str) -> None:
    if field not in demo:
        raise UsageError(f"{where} is missing")
    value = demo[field]
    if field == "output" and isinstance(value, list):
        if not value:
            raise UsageError(f"{where} is an empty list: give at least one output")
        value = value[0]
    if not isinstance(value, str):
        raise UsageError(f"{where} must be a text, not a {type(value).__name__}")
    if not value.strip():
        raise UsageError(f"{where} is empty")


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text: {error}") from error
