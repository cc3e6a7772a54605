"""Generators that ship with the package: one folder each, as `Generator.save_pretrained` writes."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the shipped generators, sorted."""
    return sorted(path.parent.name for path in FOLDER.glob("*/generator.json"))
