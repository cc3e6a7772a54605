"""Recipe files, found by path or by name."""

from __future__ import annotations

from pathlib import Path

from hypergen._utils.errors import UsageError, did_you_mean


def find_recipe(name: str, pattern: str = "*") -> Path:
    """Finds a recipe by its path, or by its name in `configs/`.

    Args:
        name: What was written.
        pattern: Glob over the names that are proposed instead of a wrong one.

    Raises:
        UsageError: There is none; names the nearest.
    """
    path = Path(name)
    for candidate in (path, Path("configs") / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    folder = path.parent if path.suffix else Path("configs")
    found = sorted(folder.glob(f"{pattern}.y*ml")) if folder.is_dir() else []
    wanted = name if path.suffix else str(folder / f"{name}.yaml")
    raise UsageError(f"there is no recipe {name!r}.{did_you_mean(wanted, map(str, found))}")
