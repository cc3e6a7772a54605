"""RPG's and G.pt's recipes train on a small zoo, and their runs are evaluated on it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

import hypergen
from hypergen import cli
from hypergen.generators.diffusion import GPt
from hypergen.zoo.build.build import build_zoo
from hypergen.zoo.build.networks import NetworkZoo
from hypergen.zoo.ensemble import Classification, Digits
from hypergen.zoo.networks import MLP

CONFIGS = Path(__file__).parents[2] / "configs"
COMMON = {
    "trainer.max_steps": "2",
    "trainer.log_every_n_steps": "1",
    "trainer.val_check_interval": "2",
    "trainer.accelerator": "cpu",
    "data.batch_size": "4",
    "data.epoch": "2",
}
SMALL = {
    "rpg": {},
    "g_pt": {"model.generator.denoiser": "{name: DiT, width: 16, depth: 1, heads: 2}"},
}


@pytest.fixture(scope="module")
def zoos(tmp_path_factory):
    """A zoo of sets of digits, and one of digits at two moments of training."""
    folder = tmp_path_factory.mktemp("zoos")
    sets = Classification(Digits(), "subsets", n_tasks=80)
    common = {"steps": 20, "lr": 1e-2}
    build_zoo(NetworkZoo("sets", MLP(64, (4,), 2), sets, 80, **common), folder / "rpg")
    digits = Classification(Digits())
    build_zoo(
        NetworkZoo("digits", MLP(64, (4,), 10), digits, 64, save_steps=(5, 20), **common),
        folder / "g_pt",
    )
    return folder


@pytest.fixture(scope="module")
def runs(zoos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, own in SMALL.items():
        options = {**COMMON, **own, "data.path": zoos / name}
        words = [f"--{key}={value}" for key, value in options.items()]
        run = folder / name
        assert (
            cli.main(["fit", "-c", str(CONFIGS / f"{name}.yaml"), "--run", str(run), *words]) == 0
        )
    return folder


@pytest.mark.parametrize("name", SMALL)
def test_the_recipe_trains_into_a_complete_run(name, runs):
    with (runs / name / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [row["step"] for row in rows] == ["1", "2"]
    assert all(float(row["train/loss"]) > 0 for row in rows)
    checkpoint = torch.load(runs / name / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert json.loads((runs / name / "zoo.json").read_text())["kind"] in ("vector", "pairs")


def test_rpg_is_evaluated_on_unseen_sets(runs, capfd, tmp_path):
    words = ["evaluate", str(runs / "rpg"), "--n", "1", "--report", str(tmp_path / "r"), "--json"]
    assert cli.main(words) == 0
    found = json.loads(capfd.readouterr().out)
    assert set(found["methods"]) >= {"generated", "nearest", "linear", "mean", "trained"}
    assert (tmp_path / "r" / "unseen.png").is_file()
    bits = [[1, 0, 0, 0, 0, 0, 0, 0, 0, 1]]
    generator = hypergen.load(runs / "rpg")
    a, b = generator.generate(vector=bits, n=2)
    assert not torch.equal(a.flat(), b.flat())


def test_g_pt_is_evaluated_on_held_out_runs(runs, capfd, tmp_path):
    words = ["evaluate", str(runs / "g_pt"), "--prompts", "3", "--recursive", "2"]
    words += ["--report", str(tmp_path / "r"), "--json"]
    assert cli.main(words) == 0
    found = json.loads(capfd.readouterr().out)
    assert len(found["wanted"]) == 3
    assert len(found["recursive"]) == 3
    assert (tmp_path / "r" / "prompting.png").is_file()
    assert isinstance(hypergen.load(runs / "g_pt"), GPt)


def test_a_zoo_that_moved_is_said(runs, zoos, capfd, tmp_path):
    shutil.copytree(runs / "rpg", tmp_path / "run")
    record = json.loads((tmp_path / "run" / "zoo.json").read_text())
    record |= {"zoo": "nowhere", "absolute": "/nowhere"}
    (tmp_path / "run" / "zoo.json").write_text(json.dumps(record))
    assert cli.main(["evaluate", str(tmp_path / "run"), "--n", "1"]) == 2
    assert "is gone" in capfd.readouterr().err
    words = ["evaluate", str(tmp_path / "run"), "--n", "1", "--zoo", str(zoos / "rpg"), "--json"]
    assert cli.main(words) == 0


def test_a_run_without_a_prompted_generator_is_refused(runs, capfd, tmp_path):
    shutil.copytree(runs / "rpg", tmp_path / "run")
    shutil.copy(runs / "g_pt" / "zoo.json", tmp_path / "run" / "zoo.json")
    assert cli.main(["evaluate", str(tmp_path / "run")]) == 2
    assert "are prompted of GPt" in capfd.readouterr().err
