"""The scripts of `experiments/benchmarks` name recipes that exist, and print their tables."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from hypergen import cli

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "experiments" / "benchmarks"


def script(name: str) -> ModuleType:
    """A script as a module, without running it."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_rows_of_sampled_methods_name_recipes_that_exist():
    rows = script("sampled_methods").ROWS
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert (ROOT / "configs" / f"{row.recipe}.yaml").is_file()
        assert (ROOT / "configs" / f"{row.zoo[0]}.yaml").is_file()


def test_the_table_of_sampled_methods_has_a_line_for_each():
    line = {
        "method": "p-diff",
        "zoo": "digits_mlp",
        "metric": "accuracy",
        "samples": {"mean": 0.5, "max": 0.75},
        "heldout": {"mean": 0.9, "max": 1.0},
        "R": {"value": 0.5, "ci95": [0.4, 0.6]},
        "dominated": None,
        "verdict": {"kind": "inside"},
        "parameters_per_weight": 12.0,
        "training_seconds": 90.0,
    }
    last = script("sampled_methods").markdown([line]).splitlines()[-1]
    assert last == (
        "| p-diff | digits_mlp | 0.5 (0.75) accuracy | 0.9 (1) | 0.50 (0.40–0.60) | – | inside "
        "| 12 | 1.5 min |"
    )


@pytest.mark.parametrize("name", ["GHN-2", "GHN-3", "GHN-3, our training", "ours"])
def test_graph_hypernetworks_are_trained_by_options_of_the_recipe(
    name, monkeypatch, tmp_path, capsys
):
    module, asked = script("graph_hypernetworks"), []
    monkeypatch.setattr(module, "hypergen", lambda *words: asked.append(words) or 1.0)
    assert module.fit(name, tmp_path, 3, 1) == 1.0
    monkeypatch.chdir(ROOT)
    assert cli.main([*asked[0], "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["trainer"]["max_steps"] == 3
    generator = config["model"]["generator"]["init_args"]
    assert generator["decoder"] == {"name": "low_rank" if name == "ours" else "tiling"}
    assert (config["model"]["loss_cap"] is None) == (name in ("GHN-2", "GHN-3"))
