"""`hypergen methods`: every system, its papers, status, recipe and code.

`configs/README.md` holds the same table, written by `python -m hypergen.methods`; a test compares
the two.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hypergen._utils.io import write_text
from hypergen.systems import CATEGORIES, SYSTEMS, Paper

_CONFIGS = Path(__file__).parent.parent / "configs"  # of a checkout


def methods_rows() -> list[dict[str, Any]]:
    """Returns the table as dictionaries, one a system, in order."""
    return [{"name": system.name, **asdict(system)} for system in SYSTEMS]


def methods_table(width: int = 58) -> str:
    """Returns the table as plain text for a terminal.

    Args:
        width: Columns that the description may take before it is cut.
    """
    rows = [("id", "status", "what it maps", "recipe", "methods")]
    for system in SYSTEMS:
        maps = system.maps if len(system.maps) <= width else f"{system.maps[: width - 1]}…"
        rows.append((system.id, system.status, maps, system.recipe or "-", system.name or "-"))
    sizes = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join([cell.ljust(size) for cell, size in zip(row, sizes, strict=False)] + [row[4]])
        for row in rows
    )


def methods_markdown() -> str:
    """Returns the text of `configs/README.md`: a section for each category, and the zoos.

    The zoos are read off the recipes beside that file; each begins with a sentence about itself.
    """
    available = sum(system.status == "available" for system in SYSTEMS)
    lines = [
        "# Recipes and methods",
        "",
        "A recipe is one YAML file here; `hypergen fit -c configs/NAME.yaml` trains it, and",
        "`--key value` changes any of its values.",
        "",
        "The tables list every system that hypergen is to contain: "
        f"{available} of {len(SYSTEMS)} are available.",
        "They are written by `python -m hypergen.methods`; change `hypergen/systems.py` instead.",
    ]
    for category, title in CATEGORIES.items():
        lines += ["", f"## {title}", ""]
        lines += ["| id | method | what it maps | status | recipe | code |", "|---" * 6 + "|"]
        for system in SYSTEMS:
            if system.category == category:
                papers = ", ".join(map(_link, system.papers)) or "hypergen"
                recipe, code = (_path(path) for path in (system.recipe, system.code))
                lines.append(
                    f"| {system.id} | {papers} | {system.maps} | {system.status} "
                    f"| {recipe} | {code} |"
                )
    lines += ["", "## Zoos", "", "Collections of trained networks to learn from, made by"]
    lines += ["`hypergen zoo build -c configs/NAME.yaml`.", ""]
    lines += ["| recipe | what it makes |", "|---" * 2 + "|"]
    for path in sorted(_CONFIGS.glob("zoo_*.yaml")):
        comment = path.read_text(encoding="utf-8").partition(".\n")[0]
        words = " ".join(line.removeprefix("#").strip() for line in comment.splitlines())
        lines.append(f"| [{path.name}]({path.name}) | {words} |")
    return "\n".join(lines) + "\n"


def methods_command(args: argparse.Namespace) -> dict[str, Any]:
    """Prints the table, unless `--json` alone was given, and returns it.

    Args:
        args: Parsed options of `hypergen methods`: `json`.

    Returns:
        {"methods": [...]}: one dictionary a system, as `methods_rows` gives them.
    """
    if args.json is None:
        print(methods_table())
    return {"methods": methods_rows()}


def _link(paper: Paper) -> str:
    text = f"{paper.name} {paper.year}"
    return f"[{text}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else text


def _path(path: str | None) -> str:
    return f"[{Path(path).name}](../{path})" if path else "–"


if __name__ == "__main__":
    write_text(_CONFIGS / "README.md", methods_markdown())
