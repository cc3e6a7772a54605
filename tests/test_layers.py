"""Imports point one way: the arrows of the design, read off the source of every module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import hypergen

# Package -> packages it may import, besides itself and FREE.
ARROWS = {
    "specs": set(),
    "conditions": set(),
    "generators": {"conditions", "specs"},
    "targets": {"specs"},
    "zoo": {"specs", "targets"},
    "training": {"conditions", "generators", "specs", "targets", "zoo"},
    "evaluation": {"conditions", "generators", "specs", "targets", "zoo"},
    "serving": {"generators", "specs", "targets"},
}
FREE = {"_utils", "errors", "pretrained"}  # importable by all; themselves they import nothing else
TOP = {"__init__", "__main__", "bench", "cli", "methods", "quickstart", "systems"}  # import all
LIGHTNING = {"training"}  # and only there


def layer(parts: tuple[str, ...]) -> str:
    """The package, or the module at the top, that a file of hypergen/ belongs to."""
    return parts[0].removesuffix(".py")


def imports(tree: ast.AST, package: tuple[str, ...]) -> list[tuple[int, str]]:
    """Every (line, dotted name) that a module imports, lazily or by a literal name too."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) + 1 - node.level]) if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and node.args:
            function = node.func
            name = getattr(function, "attr", getattr(function, "id", ""))
            first = node.args[0]
            if name in ("import_module", "__import__") and isinstance(first, ast.Constant):
                found.append((node.lineno, str(first.value)))
    return found


def wanted(name: str) -> str | None:
    """The layer that an imported name is in: "" for all of hypergen, None for other packages."""
    parts = name.split(".")
    if parts[0] != "hypergen":
        return None
    if len(parts) == 1 or parts[1] == "*":
        return ""
    public = hypergen._PUBLIC.get(parts[1])  # `from hypergen import Weights` means its module
    return public.split(".")[1] if public else parts[1]


def violations(folder: Path) -> list[str]:
    """One line for each import under `folder`, a copy of hypergen/, that no arrow allows."""
    wrong = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        here = layer(parts)
        if here not in ARROWS and here not in FREE | TOP:
            wrong.append(f"{'/'.join(parts)}: no rule for '{here}'")
            continue
        allowed = FREE | {here} | ARROWS.get(here, set())
        for line, name in imports(ast.parse(path.read_text()), ("hypergen", *parts[:-1])):
            there = wanted(name)
            place = f"{'/'.join(parts)}:{line}"
            if there is not None and here not in TOP and there not in allowed | {"__version__"}:
                wrong.append(f"{place}: {here} imports {name}")
            if name.split(".")[0] in ("lightning", "pytorch_lightning") and here not in LIGHTNING:
                wrong.append(f"{place}: {name} belongs into training")
    return wrong


def test_no_import_goes_against_the_arrows(root):
    assert violations(root / "hypergen") == []


def test_the_walk_sees_every_package_of_the_design(root):
    packages = {path.parent.name for path in (root / "hypergen").glob("*/__init__.py")}
    assert packages >= {"specs", "conditions", "generators", "targets", "_utils"}
    assert packages <= set(ARROWS) | FREE | TOP


def test_the_arrows_have_no_cycle():
    done: set[str] = set()
    while len(done) < len(ARROWS):
        ready = {name for name, below in ARROWS.items() if below <= done} - done
        assert ready
        done |= ready


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("specs/a.py", "from hypergen.conditions import Condition"),
        ("specs/a.py", "import hypergen.conditions.base"),
        ("specs/a.py", "import hypergen"),
        ("specs/a.py", "from hypergen import *"),
        ("specs/a.py", "from ..targets import base"),
        ("specs/a.py", "from .. import targets"),
        ("specs/deep/a.py", "from ...targets.base import Target"),
        ("generators/hyper/a.py", "from hypergen import Target"),
        ("generators/a.py", "def f():\n    from hypergen.targets.base import Target"),
        ("generators/a.py", "import importlib\nimportlib.import_module('hypergen.targets')"),
        ("targets/a.py", "from hypergen import generators"),
        ("serving/a.py", "from hypergen.evaluation import metrics"),
        ("training/a.py", "from hypergen.quickstart import run"),
        ("_utils/a.py", "from hypergen.specs import Slot"),
        ("evaluation/a.py", "import lightning as L"),
        ("zoo/a.py", "from lightning.pytorch import Trainer"),
        ("newcomer/a.py", ""),
    ],
)
def test_a_forbidden_import_is_caught(tmp_path, file, source):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(source)
    assert len(violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("specs/a.py", "from hypergen.specs.slot import Slot\nfrom hypergen._utils import io"),
        ("specs/a.py", "from hypergen.errors import SpecError\nfrom hypergen import __version__"),
        ("specs/a.py", "from .slot import Slot\nimport hypergenetics, torch"),
        ("generators/a.py", "from hypergen import Weights, Condition"),
        ("training/a.py", "import lightning\nfrom hypergen.zoo import build"),
        ("cli.py", "import hypergen\nfrom hypergen.quickstart import run"),
        ("errors.py", "from hypergen._utils.errors import SpecError"),
    ],
)
def test_an_allowed_import_passes(tmp_path, file, source):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(source)
    assert violations(tmp_path) == []
