"""Names of the files in a zoo's folder."""

from __future__ import annotations

import re
from pathlib import Path

ZOO_FILE = "zoo.json"
LOCK = ".lock"
MANIFEST = "manifest"
SHARDS = "shards"
QUARANTINE = "quarantine"

_PART = re.compile(r"(\d{6,})\.jsonl")


def part_path(folder: Path, part: int) -> Path:
    """The file that lists the rows of a part."""
    return folder / MANIFEST / f"{part:06d}.jsonl"


def part_numbers(folder: Path) -> list[int]:
    """Numbers of the parts that are complete, in order."""
    found = (_PART.fullmatch(path.name) for path in (folder / MANIFEST).glob("*.jsonl"))
    return sorted(int(match.group(1)) for match in found if match)


def shard_name(part: int, block: int, architecture: str, count: int, apart: bool) -> str:
    """Name of a shard, relative to the folder; `apart` for quarantined checkpoints."""
    folder = QUARANTINE if apart else SHARDS
    return f"{folder}/{part:06d}-{block}-{architecture}-{count}.safetensors"
