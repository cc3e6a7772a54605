"""Recipes of p-diff, COND P-DIFF and DeepWeightFlow train on a small zoo, and are sampled."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

import hypergen
from hypergen import cli
from hypergen.specs import FullSpec
from hypergen.zoo.build.build import build_zoo
from hypergen.zoo.build.networks import NetworkZoo
from hypergen.zoo.ensemble import Classification, Digits
from hypergen.zoo.networks import MLP

CONFIGS = Path(__file__).parents[2] / "configs"
COMMON = {
    "trainer.max_steps": "4",
    "trainer.log_every_n_steps": "1",
    "trainer.val_check_interval": "2",
    "trainer.accelerator": "cpu",
    "data.batch_size": "4",
    "data.epoch": "4",
}
CODEC = {"model.generator.codec_steps": "2"}
CONV = "{name: ConvCodec, tokens: 2, latent: 8, channels: [4, 4]}"
SMALL = {
    "p_diff": {**CODEC, "model.generator.codec": CONV},
    "deep_weight_flow": {},
    "cond_p_diff": {**CODEC, "model.generator.codec": CONV, "data.encoder": "hashing"},
}


@pytest.fixture(scope="module")
def zoos(tmp_path_factory):
    """A zoo of digits, which have one task, and one of sets of digits."""
    folder, common = tmp_path_factory.mktemp("zoos"), {"steps": 5, "lr": 1e-2}
    for name, labels, outputs, options in (
        ("digits", "classes", 10, {}),
        ("sets", "subsets", 2, {"n_tasks": 70}),
    ):
        problem = Classification(Digits(), labels, **options)
        build_zoo(
            NetworkZoo(name, MLP(64, (4,), outputs), problem, 70, **common),
            folder / name,
            workers=1,
        )
    return folder


def words_of(name, zoos) -> list[str]:
    path = zoos / ("sets" if name == "cond_p_diff" else "digits")
    options = {**COMMON, **SMALL[name], "data.path": path}
    return ["-c", str(CONFIGS / f"{name}.yaml"), *(f"--{k}={v}" for k, v in options.items())]


@pytest.fixture(scope="module")
def runs(zoos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name in SMALL:
        assert cli.main(["fit", *words_of(name, zoos), "--run", str(folder / name)]) == 0
    return folder


@pytest.mark.parametrize("name", SMALL)
def test_the_recipe_trains_into_a_complete_run(name, runs):
    recipe = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    two = "codec_steps" in recipe["model"]["generator"]["init_args"]
    with (runs / name / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert all(float(row["train/loss"]) > 0 for row in rows)
    if two:
        assert [float(row["train/stage"]) for row in rows] == [1, 2, 2, 2]
    generator = hypergen.load(runs / name)
    assert int(generator.batches) == 4
    assert bool(generator.whitened)
    record = json.loads((runs / name / "zoo.json").read_text())
    assert record["kind"] == ("text" if name == "cond_p_diff" else "none")
    assert record["settings"]["canonical"] == (name != "cond_p_diff")


@pytest.mark.parametrize("name", ["p_diff", "deep_weight_flow"])
def test_it_is_sampled_from_the_command_line(name, runs, tmp_path, capfd):
    out = tmp_path / "samples"
    words = ["generate", str(runs / name), "--n", "3", "--seed", "5", "--out", str(out), "--json"]
    assert cli.main(words) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["out"] == [str(out / f"000{i}") for i in range(3)]
    assert json.loads((out / "index.json").read_text()) == {
        f"000{i}": f"seed {5 + i}" for i in range(3)
    }
    flat = hypergen.load(runs / name).generate(n=3, seed=5).flat()
    for i, row in enumerate(flat):
        files = sorted(p.name for p in (out / f"000{i}").iterdir())
        assert {"model.safetensors", "spec.json"} <= set(files)
        assert torch.equal(saved(out / f"000{i}"), row)
    one = ["generate", str(runs / name), "--seed", "6", "--out", str(tmp_path / "one")]
    assert cli.main(one) == 0
    assert torch.allclose(saved(tmp_path / "one"), flat[1], atol=1e-5)


def saved(folder: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    spec = FullSpec.from_dict(json.loads((folder / "spec.json").read_text()))
    return spec.pack(load_file(folder / "model.safetensors"))


def test_inputs_that_do_not_fit_are_refused(runs, tmp_path, capfd):
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["generate", str(runs / "p_diff"), "--text", "digits", *out]) == 2
    assert "trained without a condition: it takes no text" in capfd.readouterr().err
    assert cli.main(["generate", str(runs / "cond_p_diff"), *out]) == 2
    assert "give one of --text" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_sentence_makes_a_network(runs, zoos, tmp_path, capfd):
    words = ["generate", str(runs / "cond_p_diff"), "--text", "Is the digit 1 or 7?", "--n", "2"]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 0
    capfd.readouterr()
    assert (
        cli.main(["test", *words_of("cond_p_diff", zoos), "--run", str(runs / "cond_p_diff")]) == 0
    )
    assert json.loads(capfd.readouterr().out)["test/loss"] > 0
