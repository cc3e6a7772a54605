"""`hypergen fit|validate|test`: recipes, run folders, and errors of one line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import toy
import yaml

import hypergen
from hypergen import cli
from hypergen.training import GeneratorModule, fit

RECIPE = """
# A toy: linear tasks.
data:
  class_path: toy.ToyData
  init_args: {epoch: 5}
model:
  generator:
    class_path: MLPGenerator
    init_args: {hidden: 16, depth: 1, dropout: 0.1}
  objective: task
  lr: 3.0e-3
trainer:
  max_steps: 10
  accelerator: cpu
  log_every_n_steps: 5
"""


@pytest.fixture(autouse=True)
def recipe(tmp_path, monkeypatch):
    """A working folder with one recipe."""
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "small.yaml"
    path.write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return path


def weights(run):
    return (run / "generator" / "generator.safetensors").read_bytes()


def fails(capfd, *words) -> str:
    """The one line on standard error with which bad input ends."""
    assert cli.main(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("hypergen: error: ")
    assert err.count("\n") == 1
    return err.removeprefix("hypergen: error: ").strip()


# -- fit


def test_a_recipe_is_trained_into_runs_name(tmp_path, capfd):
    assert cli.main(["fit", "-c", "configs/small.yaml"]) == 0
    assert capfd.readouterr() == ("", "")
    run = tmp_path / "runs" / "small"
    names = {path.name for path in run.iterdir()}
    assert names == {"config.yaml", "metrics.csv", "checkpoints", "generator", "suite.json"}
    assert len(hypergen.load(run).generate("is it red or old")) == 1


def test_the_command_line_and_the_notebook_train_alike(tmp_path):
    assert cli.main(["fit", "-c", "small", "--run", "a", "--seed", "4"]) == 0
    data = toy.ToyData(epoch=5, seed=4)
    torch.manual_seed(4)
    generator = hypergen.MLPGenerator(data.spec, data.encoder, hidden=16, depth=1, dropout=0.1)
    built = GeneratorModule(generator, "task", lr=3e-3, seed=4)
    fit(built, data, tmp_path / "b", max_steps=10)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_a_value_of_the_recipe_can_be_changed(tmp_path):
    words = ["--model.generator", "TransformerGenerator", "--model.generator.dim", "16"]
    words += ["--trainer.max_steps=2", "--model.objective", '{"task": 1, "toy.Shrink": 0.5}']
    words += ["--data.tasks_per_batch", "4", "--model.ema_decay", "0.5"]
    assert cli.main(["fit", "-c", "small", *words]) == 0
    run = tmp_path / "runs" / "small"
    generator = hypergen.load(run)
    assert type(generator).__name__ == "TransformerGenerator"
    assert generator.config["dim"] == 16
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["objective"] == {"task": 1.0, "toy.Shrink": 0.5}
    assert config["data"]["init_args"]["tasks_per_batch"] == 4
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert "GeneratorEMA" in checkpoint["callbacks"]


def test_the_runs_config_repeats_the_run(tmp_path):
    assert cli.main(["fit", "-c", "small", "--run", "a", "--model.lr", "0.01"]) == 0
    assert cli.main(["fit", "-c", "a/config.yaml", "--run", "b"]) == 0
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert cli.main(["fit", "-c", "a/config.yaml", "--run", "c", "--seed", "1"]) == 0
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


def test_the_config_of_a_notebooks_run_is_a_recipe_too(tmp_path):
    data = toy.ToyData(epoch=5)
    fit(toy.module(data), data, tmp_path / "a", max_steps=4)
    assert cli.main(["fit", "-c", "a/config.yaml", "--run", "b"]) == 0
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_a_checkpoint_of_the_command_line_is_rebuilt_alone(tmp_path):
    assert cli.main(["fit", "-c", "small", "--run", "a"]) == 0
    path = tmp_path / "a" / "checkpoints" / "last.ckpt"
    built = GeneratorModule.load_from_checkpoint(path, weights_only=True)
    text = "is it red or old"
    expected = hypergen.load(tmp_path / "a").generate(text).flat()
    assert torch.equal(built.generator.generate(text).flat(), expected)
    assert built.lr == 3e-3


def test_resume_goes_on(tmp_path):
    steps = ["--model.schedule", "constant", "--model.warmup", "0"]
    assert cli.main(["fit", "-c", "small", "--run", "a", *steps]) == 0
    first = ["fit", "-c", "small", "--run", "b", *steps, "--trainer.max_steps", "7"]
    assert cli.main(first) == 0
    assert cli.main(["fit", "--run", "b", "--resume", "--trainer.max_steps", "10"]) == 0
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_a_run_starts_from_another(tmp_path):
    assert cli.main(["fit", "-c", "small", "--run", "a"]) == 0
    still = ["--model.lr", "1e-12", "--trainer.max_steps", "1", "--model.weight_decay", "0"]
    assert cli.main(["fit", "-c", "small", "--run", "b", "--init", "a", *still]) == 0
    one, two = (hypergen.load(tmp_path / run).state_dict() for run in "ab")
    assert all(torch.allclose(one[key], two[key], atol=1e-9) for key in one)


def test_a_run_is_not_overwritten_unasked(tmp_path, capfd):
    assert cli.main(["fit", "-c", "small"]) == 0
    before = weights(tmp_path / "runs" / "small")
    message = fails(capfd, "fit", "-c", "small", "--seed", "1")
    assert message == ("runs/small holds a run: add --resume, --overwrite, or another --run DIR")
    assert weights(tmp_path / "runs" / "small") == before
    assert cli.main(["fit", "-c", "small", "--seed", "1", "--overwrite"]) == 0
    assert weights(tmp_path / "runs" / "small") != before


def test_a_dry_run_writes_nothing(tmp_path):
    assert cli.main(["fit", "-c", "small", "--trainer.fast_dev_run", "true"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["configs"]


# -- validate and test


@pytest.mark.parametrize(("verb", "split"), [("validate", "val"), ("test", "test")])
def test_a_run_is_scored(tmp_path, capfd, verb, split):
    assert cli.main(["fit", "-c", "small", "--run", "a"]) == 0
    assert cli.main([verb, "--run", "a"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    scores = json.loads(out)
    data = toy.ToyData()
    tasks = torch.tensor(data.suite.task_splits["val" if split == "val" else "heldout_tasks"])
    wordings = data.suite.descriptions["val" if split == "val" else "train"]
    texts = [wordings[task][0] for task in tasks.tolist()]
    generated = hypergen.load(tmp_path / "a").generate(texts)
    expected = float(data.suite.score(data.target, generated, tasks, split).mean())
    assert scores[f"{split}/score"] == pytest.approx(expected)
    assert set(scores) == {f"{split}/score", f"{split}/loss"}


# -- mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model.lrr 1", "hypergen fit has no option '--model.lrr'. Did you mean '--model.lr'?"),
        ("--lr 1", "hypergen fit has no option '--lr'. Did you mean '--model.lr'?"),
        ("--resum", "hypergen fit has no option '--resum'. Did you mean '--resume'?"),
        ("--trainer.max_step 3", "no option '--trainer.max_step'. Did you mean '--trainer.max_s"),
        ("--xyz 3", "hypergen fit has no option '--xyz'. See --help."),
        ("stray", "hypergen fit does not take 'stray' (see its --help)"),
        ("--model.lr abc", "model.lr: Expected a float. Got value: abc"),
        ("--model.lr -1", "lr=-1.0 is out of range"),
        ("--model.schedule linear", "model.schedule: Expected a Literal['cosine', 'constant']."),
        ("--model.generator MLPGenrator", "no class 'MLPGenrator'. Did you mean 'MLPGenerator'?"),
        ("--model.generator.hiden 3", "has no argument 'hiden'. Did you mean 'hidden'?"),
        ("--model.generator.init foo", "model.generator.init: Expected a Literal['theta0'"),
        ("--model.objective tsak", "there is no objective 'tsak'. Did you mean 'task'?"),
        ("--data toy.ToyDat", "data: toy has no class 'ToyDat'. Did you mean 'ToyData'?"),
        ("--data nomodule.Data", "data: no module named 'nomodule'"),
        ("--data.tasks_per_bach 3", "no argument 'tasks_per_bach'. Did you mean 'tasks_per_batch'"),
        ("--data.tasks_per_batch 0", "tasks_per_batch must be positive, not 0"),
        ("--trainer.accelerator gpuu", "trainer: You selected an invalid accelerator name"),
        ("--init nowhere", "nowhere does not exist"),
        ("--resume", "runs/small/checkpoints/last.ckpt does not exist: there is nothing to resume"),
        ("--resume --overwrite", "--resume and --overwrite exclude each other"),
        ("--run", "argument --run: expected one argument"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, capfd, words, message):
    assert message in fails(capfd, "fit", "-c", "small", *words.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-c", "configs/smal.yaml"], "no recipe 'configs/smal.yaml'. Did you mean 'configs/sma"),
        (["-c", "smal"], "there is no recipe 'smal'. Did you mean 'configs/small.yaml'?"),
        (["-c"], "-c needs a file: the recipe"),
        ([], "give a recipe: -c configs/NAME.yaml"),
        (["--run", "nowhere"], "nowhere/config.yaml does not exist: give a recipe with -c"),
    ],
)
def test_a_missing_recipe_is_one_line(capfd, words, message):
    assert message in fails(capfd, "fit", *words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(modle=1), "the recipe has no key 'modle'. Did you mean 'model'?"),
        (lambda c: c["model"].update(lrr=1), "no option '--model.lrr'. Did you mean '--model.lr'"),
        (lambda c: c["model"]["generator"]["init_args"].update(hid=1), "no argument 'hid'. Did"),
        (lambda c: c["data"]["init_args"].update(epok=1), "ToyData has no argument 'epok'. Did"),
        (lambda c: c.pop("data"), "the recipe lacks data"),
        (lambda c: c["model"].pop("generator"), "the recipe lacks model.generator"),
    ],
)
def test_a_wrong_key_of_the_recipe_is_one_line(capfd, recipe, change, message):
    config = yaml.safe_load(RECIPE)
    change(config)
    recipe.write_text(yaml.safe_dump(config))
    assert message in fails(capfd, "fit", "-c", "small")


def test_a_recipe_that_is_no_yaml_is_one_line(capfd, recipe):
    recipe.write_text("data: [\n")
    assert "did not find expected node content" in fails(capfd, "fit", "-c", "small")


def test_validation_needs_a_trained_run(capfd):
    message = fails(capfd, "validate", "-c", "small", "--run", "nowhere")
    assert message == "nowhere/generator does not exist: train it first"


def test_a_run_for_another_target_is_refused(tmp_path, capfd):
    data = toy.ToyData()
    spec = hypergen.LoRASpec(toy.Net(), "all-linear", r=3)
    hypergen.MLPGenerator(spec, data.encoder).save_pretrained(tmp_path / "a" / "generator")
    assert "for another target" in fails(capfd, "validate", "-c", "small", "--run", "a")
    assert "for another target" in fails(capfd, "fit", "-c", "small", "--init", "a")


def test_help_shows_the_options(capfd):
    assert cli.main(["fit", "--help"]) == 0
    out = capfd.readouterr().out
    assert all(option in out for option in ("--run", "--resume", "--model.lr", "--seed", "-c"))


# -- several processes


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path, child_env):
    command = [sys.executable, "-m", "hypergen", "fit", "-c", "small", "--model.ema_decay", "0.5"]
    command += ["--model.generator.dropout", "0"]  # each process draws its own noise
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    for name, words in (("one", []), ("two", two)):
        subprocess.run(
            [*command, "--run", name, *words], cwd=tmp_path, env=child_env, check=True, timeout=300
        )
    one, two_ = (hypergen.load(tmp_path / name).state_dict() for name in ("one", "two"))
    for key in one:
        torch.testing.assert_close(one[key], two_[key], rtol=1e-4, atol=1e-6)
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert names == {"config.yaml", "metrics.csv", "checkpoints", "generator", "suite.json"}
    scores = [
        [row.split(",")[-1] for row in (tmp_path / n / "metrics.csv").read_text().splitlines()]
        for n in ("one", "two")
    ]
    assert scores[0] == scores[1]
