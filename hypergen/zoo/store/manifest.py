"""Parts of the manifest: one line for each checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypergen._utils.errors import RunError
from hypergen._utils.io import inside
from hypergen.zoo.store.paths import part_path
from hypergen.zoo.store.records import Row
from hypergen.zoo.store.seal import open_lines


def read_part(folder: Path, part: int) -> tuple[list[Row], dict[str, Any]]:
    """Reads and checks one part of the manifest.

    Returns:
        Its rows, and what it says of its shards by name.

    Raises:
        RunError: It is damaged or malformed, or names a file outside the folder; names the file.
    """
    path = part_path(folder, part)
    try:
        head, lines = open_lines(path.read_bytes())
        rows = [Row.from_dict(line) for line in lines]
        shards = head["shards"]
        if head["part"] != part or head["rows"] != len(rows):
            raise RunError("it is the list of another part")
        for name, entry in shards.items():
            inside(folder, name)
            if set(entry) != {"bytes", "sha256"}:
                raise RunError(f"what it says of {name} is malformed")
        for row in rows:
            if row.shard not in shards:
                raise RunError(f"{row.label} is in {row.shard!r}, which it does not list")
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: it is malformed: {error!r}") from error
    except RunError as error:
        raise RunError(f"{path}: {error}") from error
    return rows, shards
