"""`hypergen generate`: a condition in, an adapter folder out."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen._utils.io import atomic_folder
from hypergen.generators import load
from hypergen.specs import Weights


def generate_command(args: argparse.Namespace) -> dict[str, Any]:
    """Generates weights and saves them as folders that stock PEFT (or the spec's own) loads.

    One network goes into `out` itself, several into `out/0000`, `out/0001`, …, condition by
    condition.

    Args:
        args: `run`; one of `text` (a sentence, several, or `-` for the lines of standard input),
            `demos` (a JSON Lines file) and `document` (a text file); `n`, `seed`, `out`; `json`.

    Returns:
        `{"out": [folder], "expected_gain": [gain] or None, "sha256": {file: digest}, "spec": …}`.

    Raises:
        RunError: The run folder is missing or damaged.
        ConditionError: A bad input, or a kind that the generator does not take.
        UsageError: An input file is missing or malformed, or `out` holds something else.
    """
    inputs = read_inputs(args)
    out = Path(args.out)
    check_out(out)
    generator = load(args.run)
    weights = generator.generate(**inputs, n=args.n, seed=args.seed)
    folders = _save(weights, _names(args, inputs), out)
    gains = None if weights.expected_gain is None else weights.expected_gain.tolist()
    if getattr(args, "json", None) is None:
        for i, folder in enumerate(folders):
            said = "" if gains is None else f"  expected gain {gains[i]:+.3f}"
            print(f"{folder}{said}")
    return {
        "out": [str(folder) for folder in folders],
        "expected_gain": gains,
        "sha256": {
            str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest()
            for folder in folders
            for file in sorted(folder.iterdir())
            if file.is_file()
        },
        "spec": generator.spec.to_dict(),
    }


def _names(args: argparse.Namespace, inputs: dict[str, Any]) -> list[dict[str, str]]:
    """What each condition is called on model cards: sentences themselves, files by name."""
    if "text" in inputs:
        return [{"text": text} for text in inputs["text"]]
    kind = "demos" if "demos" in inputs else "document"
    return [{kind: Path(getattr(args, kind)).name}]


def _save(weights: Weights, names: list[dict[str, str]], out: Path) -> list[Path]:
    """Writes all networks or none; a folder that was there is replaced as a whole."""
    draws = len(weights) // len(names)
    networks = list(weights)
    for i, one in enumerate(networks):
        one.provenance = {**weights.provenance, **names[i // draws]}
    if len(networks) == 1:
        return networks[0].save_pretrained(out)
    with atomic_folder(out, overwrite=True) as temporary:
        for i, one in enumerate(networks):
            one.save_pretrained(temporary / f"{i:04d}")
    return [out / f"{i:04d}" for i in range(len(networks))]


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


# What a folder of generated weights may hold.
_CONFIGS = {"adapter_config.json", "spec.json", "bottleneck.json"}
_FILES = {
    *_CONFIGS,
    "README.md",
    "adapter_model.safetensors",
    "model.safetensors",
    "delta.safetensors",
    "bottleneck.safetensors",
}


def check_out(out: Path) -> None:
    """Refuses a folder that holds anything but earlier results: it will be replaced.

    Raises:
        UsageError: It is a file, or holds something else; names that.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    if not out.is_dir() or _is_result(out):
        return
    for path in sorted(out.iterdir()):
        if not (path.is_dir() and path.name.isdigit() and _is_result(path)):
            raise UsageError(f"--out {out} holds {path.name!r}; choose another folder")


def _is_result(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    return bool(names & _CONFIGS) and names <= _FILES
