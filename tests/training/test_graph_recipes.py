"""Every recipe of a graph hypernetwork trains, and its run is tested and evaluated."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

import hypergen
from hypergen import cli
from hypergen.generators.graph import GraphHypernetwork

ROOT = Path(__file__).parents[2]
RECIPES = sorted(p for n in ("ghn", "loga") for p in (ROOT / "configs").glob(f"{n}*.yaml"))
SMALL = {
    "data.space.width": "[4,4]",
    "data.space.depth": "[1,2]",
    "data.meta_batch": "2",
    "data.batch_size": "4",
    "data.val_architectures": "1",
    "data.test_architectures": "1",
    "data.eval_samples": "20",
    "trainer.max_steps": "2",
    "trainer.log_every_n_steps": "1",
    "trainer.accelerator": "cpu",
}


@pytest.fixture
def options(tmp_path):
    """Overrides that make a recipe small, and let it do without its data."""
    text = tmp_path / "text.txt"
    text.write_text("now is the winter of our discontent " * 20)

    def of(recipe):
        images = "Image" in yaml.safe_load(recipe.read_text())["data"]["class_path"]
        further = {"data.source": "digits"} if images else {"data.path": text, "data.context": "8"}
        return [f"--{key}={value}" for key, value in {**SMALL, **further}.items()]

    return of


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipe_trains_into_a_complete_run(path, tmp_path, options, capfd):
    run = tmp_path / "run"
    assert cli.main(["fit", "-c", str(path), "--run", str(run), *options(path)]) == 0
    assert capfd.readouterr().out == ""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert all(float(row["train/loss"]) > 0 for row in rows)
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert all(name.startswith("generator.") for name in checkpoint["state_dict"])
    generator = hypergen.load(run)
    assert isinstance(generator, GraphHypernetwork)
    asked = yaml.safe_load(path.read_text())["model"]["generator"]["init_args"]
    for part in ("encoder", "decoder"):
        assert asked[part].items() <= generator.config[part].items()


def test_a_run_is_resumed_tested_and_evaluated(tmp_path, options, capfd):
    path, run = ROOT / "configs" / "ghn_digits.yaml", tmp_path / "run"
    words = ["-c", str(path), "--run", str(run), *options(path)]
    assert cli.main(["fit", *words]) == 0
    assert cli.main(["fit", "--run", str(run), "--resume", "--trainer.max_steps=3"]) == 0
    assert len((run / "metrics.csv").read_text().splitlines()) == 4
    other = tmp_path / "other"
    warm = ["--init", str(run), "--model.lr=1e-12", "--model.ema_decay=0"]
    assert cli.main(["fit", *words[:2], "--run", str(other), *words[4:], *warm]) == 0
    a, b = (dict(hypergen.load(r).named_parameters()) for r in (run, other))
    assert all(torch.allclose(a[n], b[n], atol=1e-6) for n in a)
    capfd.readouterr()
    assert cli.main(["test", "--run", str(run)]) == 0
    found = json.loads(capfd.readouterr().out)
    assert {"test/score", "test/score/wide", "test/loss/norm_free"} <= found.keys()


def test_a_recipe_without_its_text_says_what_to_do(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("HYPERGEN_DATA", raising=False)
    words = ["fit", "-c", str(ROOT / "configs" / "loga_char_lm.yaml"), "--run", str(tmp_path / "r")]
    assert cli.main(words) == 2
    error = capfd.readouterr().err
    assert "HYPERGEN_DATA" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("--data.space.with=[4,4]", "width"),
        ("--data.space.width=[9,4]", "width"),
        ("--data.space.families={cell: 1}", "cells"),
        ("--data.source=digit", "digits"),
        ("--model.label_smothing=0.1", "label_smoothing"),
        ("--model.generator.init_args.decoder={name: tilling}", "tiling"),
    ],
)
def test_a_wrong_option_is_one_line_with_the_nearest_name(word, named, tmp_path, capfd):
    path = ROOT / "configs" / "ghn_digits.yaml"
    assert cli.main(["fit", "-c", str(path), "--run", str(tmp_path / "r"), word]) == 2
    out, error = capfd.readouterr()
    assert out == ""
    assert error.startswith("hypergen: error: ")
    assert error.count("\n") == 1
    assert named in error
