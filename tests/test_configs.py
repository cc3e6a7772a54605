"""Every recipe trains: two steps of each, and what a run leaves behind."""

from __future__ import annotations

import csv
import inspect
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import hypergen
from hypergen import cli

ROOT = Path(__file__).parent.parent
# Recipes of zoos (`zoo_*`) are built in tests/zoo; what trains on one, or on a language model
# (tests/training/test_language.py) or on architectures (tests/training/test_graph_recipes.py), or
# samples what a zoo holds (tests/training/test_{sampled,embedding,diffusion}_recipes.py), has its
# own test.
SAMPLED = ("rpg", "g_pt", "sane", "d2nwg", "hyper_diff", "p_diff", "cond_p_diff", "deep_weight")
RECIPES = [
    path
    for path in sorted((ROOT / "configs").glob("*.yaml"))
    if not path.name.startswith(("zoo_", "from_zoo", "ghn", "loga", *SAMPLED))
    and "smollm2" not in path.name
]
# More than the 160 subsets that are held out or validate.
SMALL_VALUES = {
    "data.encoder": "hashing",
    "data.n_subsets": "170",
    "data.n_composed": "10",
    "data.wordings_per_task": "2",
    "data.pretrain_steps": "20",
    "data.zoo_steps": "5",
    "data.tasks_per_batch": "4",
    "data.samples_per_task": "2",
    "trainer.max_steps": "2",
    "trainer.log_every_n_steps": "1",
    "trainer.accelerator": "cpu",
}
SMALL = [f"--{name}={value}" for name, value in SMALL_VALUES.items()]
TEXT = "Say yes if the digit is even."


@pytest.fixture
def fails(capfd):
    """Runs a command line that must fail; returns its one line on standard error."""

    def run(*words: str) -> str:
        assert cli.main(list(words)) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("hypergen: error: ")
        assert err.count("\n") == 1
        return err

    return run


def tensors(tree: object) -> list[torch.Tensor]:
    """All tensors of a checkpoint, however deep."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    values = tree.values() if isinstance(tree, dict) else tree
    return [t for v in values for t in tensors(v)] if isinstance(tree, dict | list | tuple) else []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipe_trains_into_a_complete_run(path, tmp_path, capfd):
    run = tmp_path / "run"
    assert cli.main(["fit", "-c", str(path), "--run", str(run), *SMALL]) == 0
    assert capfd.readouterr().out == ""
    files = {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}
    assert files >= {
        "config.yaml",
        "metrics.csv",
        "checkpoints/last.ckpt",
        "generator/generator.json",
        "generator/generator.safetensors",
        "suite.json",
        "target/network.json",
        "target/model.safetensors",
    }

    config = yaml.safe_load((run / "config.yaml").read_text())
    recipe = yaml.safe_load(path.read_text())
    assert config["model"]["objective"] == recipe["model"]["objective"]
    assert config["data"]["init_args"]["n_subsets"] == 170
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert all(float(row["train/loss"]) > 0 for row in rows)

    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert all(name.startswith("generator.") for name in checkpoint["state_dict"])
    frozen = load_file(run / "target" / "model.safetensors")
    stored = tensors(checkpoint)
    assert not [n for n, f in frozen.items() if any(torch.equal(f, t) for t in stored)]

    generator = hypergen.load(run)
    asked = recipe["model"]["generator"]
    assert type(generator).__name__ == asked["class_path"].rpartition(".")[2]
    assert asked["init_args"].items() <= generator.config.items()
    weights = generator.generate(text=TEXT, seed=0)
    assert len(weights) == 1
    assert torch.isfinite(weights.flat()).all()
    assert not torch.equal(weights.flat()[0], generator.spec.initial(0))  # it was trained


def test_the_warm_start_joins_with_the_demos_recipe(tmp_path):
    warm, run = tmp_path / "warm", tmp_path / "run"
    words = ["-c", str(ROOT / "configs" / "digits_reconstruction.yaml"), "--run", str(warm)]
    assert cli.main(["fit", *words, *SMALL]) == 0
    words = ["-c", str(ROOT / "configs" / "digits.yaml"), "--run", str(run), "--init", str(warm)]
    assert cli.main(["fit", *words, *SMALL, "--model.lr", "1e-12"]) == 0
    before, after = (hypergen.load(r).generate(text=TEXT).flat() for r in (warm, run))
    assert torch.allclose(before, after, atol=1e-6)


def test_a_generator_is_trained_on_a_zoo(tmp_path, capfd):
    zoo, run = tmp_path / "zoo", tmp_path / "run"
    words = ["-c", str(ROOT / "configs" / "zoo_digits_subsets.yaml"), "--out", str(zoo)]
    words += ["--runs=20", "--runs_per_job=20", "--steps=3", "--problem.n_tasks=20"]
    assert cli.main(["zoo", "build", *words, "--workers=1"]) == 0
    words = ["-c", str(ROOT / "configs" / "from_zoo.yaml"), "--run", str(run)]
    words += [f"--data.path={zoo}", "--data.encoder=hashing", "--data.batch_size=4"]
    words += ["--trainer.max_steps=2", "--trainer.accelerator=cpu"]
    assert cli.main(["fit", *words]) == 0
    capfd.readouterr()
    assert cli.main(["test", *words]) == 0
    assert json.loads(capfd.readouterr().out)["test/loss"] > 0
    weights = hypergen.load(run).generate(text="Is the digit 1 or 7?", seed=0)
    assert weights.named()["0.weight"].shape == (1, 32, 64)


def test_the_demo_is_its_recipe():
    from types import SimpleNamespace

    from hypergen.conditions import HashingEncoder
    from hypergen.quickstart.network import DigitNet
    from hypergen.quickstart.run import RECIPE, build_generator, demo
    from hypergen.specs import LoRASpec

    recipe = yaml.safe_load((ROOT / "configs" / "digits.yaml").read_text())
    spec = LoRASpec(DigitNet(), ["fc1", "fc2", "out"], r=4)
    parts = SimpleNamespace(spec=spec, encoder=HashingEncoder(16))
    built = build_generator(parts, 0)
    asked = recipe["model"]["generator"]
    assert type(built).__name__ == asked["class_path"]
    plain = type(built)(spec, parts.encoder, **asked["init_args"])
    assert plain.config == built.config
    assert RECIPE.items() <= recipe["data"]["init_args"].items()
    warm = yaml.safe_load((ROOT / "configs" / "digits_reconstruction.yaml").read_text())
    assert warm["model"]["generator"] == asked
    defaults = inspect.signature(demo).parameters
    assert recipe["trainer"]["max_steps"] == defaults["steps"].default
    assert warm["trainer"]["max_steps"] == defaults["warm_steps"].default


def test_a_run_is_validated_and_tested(tmp_path, capfd):
    run = tmp_path / "run"
    recipe = ["-c", str(ROOT / "configs" / "digits_mlp.yaml"), "--run", str(run)]
    assert cli.main(["fit", *recipe, *SMALL]) == 0
    capfd.readouterr()
    for verb, split, further in (
        ("validate", "val", "val_properties"),
        ("test", "test", "heldout_properties"),
    ):
        printed = []
        # By the recipe, or by what the run says of itself.
        for words in ([*recipe, *SMALL], ["--run", str(run)]):
            assert cli.main([verb, *words]) == 0
            printed.append(json.loads(capfd.readouterr().out))
        assert printed[0] == printed[1]
        for name in (f"{split}/score", f"{split}/score/{further}"):
            assert 0.3 < printed[0][name] < 0.7  # two steps teach nothing


def test_a_wrong_recipe_is_one_line_with_the_nearest_name(fails, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert "configs/digits_mlp.yaml" in fails("fit", "-c", "configs/digits_mpl.yaml")
    assert "configs/digits_mlp.yaml" in fails("fit", "-c", "digit_mlp")
    run = ["--run", str(tmp_path / "run")]
    digits = ["fit", "-c", "configs/digits.yaml", *run]
    assert "n_subsets" in fails(*digits, "--data.n_subset", "170")
    assert "max_steps" in fails(*digits, "--trainer.max_step", "2")
    assert "size" in fails("fit", "-c", "text2lora_l", *run, "--model.generator.sise", "M")
    assert not (tmp_path / "run").exists()


def test_more_is_held_out_than_there_is(fails, tmp_path):
    recipe = ["-c", str(ROOT / "configs" / "digits.yaml"), "--run", str(tmp_path / "run")]
    assert "n_subsets=100" in fails("fit", *recipe, *SMALL, "--data.n_subsets", "100")
    assert not (tmp_path / "run").exists()
