"""`import hypergen` and `hypergen --help` load nothing heavy; public names load on first use."""

from __future__ import annotations

import ast
import importlib
import operator
import subprocess
import sys

import pytest

import hypergen

HEAVY = {
    "diffusers",
    "lightning",
    "matplotlib",
    "numpy",
    "peft",
    "safetensors",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
}


def loaded(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter holds after running the code."""
    probe = f"{code}\nimport sys\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return HEAVY & {name.split(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import hypergen; dir(hypergen); hypergen.__version__",
        "import hypergen.errors",
        "from hypergen.cli import main; assert main(['--help']) == 0",
        "from hypergen.cli import main; assert main(['demo', '--help']) == 0",
        "from hypergen.cli import main; assert main(['methods']) == 0",
        "from hypergen.cli import main; assert main(['zoo', '--help']) == 0",
        "import hypergen.zoo; dir(hypergen.zoo)",
        "from hypergen.cli import main; assert main(['--version']) == 0",
        "from hypergen._utils import errors, extras, io, progress, seeding",
    ],
)
def test_nothing_heavy_is_imported(code):
    assert loaded(code) == set()


def test_the_probe_sees_a_heavy_import():
    assert "numpy" in loaded("import numpy")


@pytest.mark.parametrize("name", sorted(hypergen._PUBLIC))
def test_each_public_name_is_what_its_module_defines(name):
    value = getattr(hypergen, name)
    assert value is getattr(importlib.import_module(hypergen._PUBLIC[name]), name)
    assert name in dir(hypergen)
    assert name in hypergen.__all__


def test_type_checkers_see_the_same_names_as_the_interpreter(root):
    tree = ast.parse((root / "hypergen" / "__init__.py").read_text())
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hypergen.")
        for alias in node.names
    }
    assert seen == hypergen._PUBLIC


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'hypergen' has no attribute 'Wieghts'"):
        operator.attrgetter("Wieghts")(hypergen)
    assert not hasattr(hypergen, "_nothing")
