"""`hypergen evaluate` on run folders and task folders, good and bad."""

from __future__ import annotations

import argparse
import json
import shutil

import pytest
import torch

from hypergen.errors import RunError, RunNotFoundError, UsageError
from hypergen.evaluation import DescriptionBank, RunAssets, Zoo
from hypergen.evaluation.command import evaluate_command
from hypergen.zoo import TaskSuite


@pytest.fixture(scope="module")
def run(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "toy"
    toy.generator.save_pretrained(folder / "generator")
    bank = DescriptionBank.encode(toy.generator, toy.suite, toy.suite.task_splits["train"])
    settings = {"oracle_steps": 80, "oracle_options": toy.options}
    RunAssets(toy.suite, toy.zoo, toy.multitask, bank, settings).save(folder)
    return folder


@pytest.fixture
def broken(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def options(run, tasks=None, split="test", report=None, **more):
    return argparse.Namespace(
        run=str(run), tasks=tasks, split=split, report=report, json="-", **more
    )


def task(folder, name="task", **keys):
    folder.mkdir(exist_ok=True)
    data = {"name": name, "descriptions": ["say yes to red", "is it red"], "colours": [0], **keys}
    (folder / f"{name}.json").write_text(
        json.dumps({k: v for k, v in data.items() if v is not None})
    )
    return str(folder)


def test_assets_come_back_equal(toy, run):
    again = RunAssets.load(run)
    assert again.suite.names == toy.suite.names
    assert torch.equal(again.zoo.weights.flat(), toy.zoo.weights.flat())
    assert torch.equal(again.multitask.flat(), toy.multitask.flat())
    assert again.bank.pooled.shape == (54, 128)
    assert again.settings["oracle_steps"] == 80


def test_the_runs_own_splits_are_the_default(run, evaluation):
    found = evaluate_command(options(run))
    assert list(found["splits"]) == ["heldout_tasks", "heldout_wordings", "seen_wordings"]
    first = evaluation.to_dict()["splits"]["heldout_tasks"]
    for method in ("base", "mean", "nearest", "multitask", "generated", "shuffled"):
        assert found["splits"]["heldout_tasks"][method] == pytest.approx(first[method], abs=1e-6)


def test_given_tasks_go_to_the_splits_that_apply(toy, run, tmp_path, capsys):
    folder = tmp_path / "tasks"
    trained, held = toy.suite.subsets[3], toy.suite.subsets[26]
    words = " or ".join(["red", "blue", "green", "white", "black"][i] for i in sorted(held))
    task(folder, "new", descriptions=[f"is it {words}"], colours=sorted(held))
    task(folder, "reworded", descriptions=["an unseen wording"], colours=sorted(trained))
    seen = toy.suite.descriptions["train"][3]
    task(folder, "seen", descriptions=seen, colours=sorted(trained))
    args = options(run, str(folder), report=str(tmp_path / "report"))
    args.json = None
    found = evaluate_command(args)
    assert {name: split["n"] for name, split in found["splits"].items()} == {
        "heldout_tasks": 1,
        "heldout_wordings": 1,
        "seen_wordings": 1,
    }
    assert set(found["tasks"]) == {"new", "reworded", "seen"}
    assert found["tasks"]["seen"]["generated"] > 0.9
    assert found["tasks"]["new"]["oracle"] > 0.9
    out = capsys.readouterr().out
    assert out.startswith("split ")
    assert str(tmp_path / "report" / "report.html") in out
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["tasks"] == found["tasks"]


def test_the_samples_are_those_of_the_split(run, toy):
    test, val = (evaluate_command(options(run, split=s)) for s in ("test", "val"))
    assert test["tasks"] != val["tasks"]
    with pytest.raises(UsageError, match="no samples of the split 'tset'"):
        evaluate_command(options(run, split="tset"))


def test_a_run_without_baselines_leaves_them_out(broken):
    shutil.rmtree(broken / "baselines")
    split = evaluate_command(options(broken))["splits"]["heldout_tasks"]
    assert {"mean", "nearest", "multitask"}.isdisjoint(split)
    assert split["oracle"] > 0.9


def test_a_missing_run_is_told(tmp_path, toy):
    with pytest.raises(RunNotFoundError, match="nowhere does not exist"):
        evaluate_command(options(tmp_path / "nowhere"))
    with pytest.raises(RunError, match="holds no generator"):
        evaluate_command(options(tmp_path))
    toy.generator.save_pretrained(tmp_path / "generator")
    with pytest.raises(RunNotFoundError, match=r"suite\.json does not exist"):
        evaluate_command(options(tmp_path))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("suite.json", "{", r"suite\.json is not valid JSON"),
        ("suite.json", "[]", r"suite\.json is damaged: it has no text under 'class'"),
        (
            "suite.json",
            '{"class": "EvaluationSiute"}',
            r"unknown task suite 'EvaluationSiute'.*mean 'EvaluationSuite'",
        ),
        (
            "suite.json",
            '{"class": "EvaluationSuite", "init_args": 3}',
            "'init_args' is not an object",
        ),
        (
            "suite.json",
            '{"class": "EvaluationSuite", "init_args": {"x": 1}}',
            r"suite\.json: task suite 'EvaluationSuite' cannot be built",
        ),
        ("baselines/zoo.safetensors", "x", r"zoo\.safetensors is not a valid safetensors file"),
        ("baselines/multitask.safetensors", "x", r"multitask\.safetensors is not a valid"),
        ("baselines/descriptions.safetensors", "x", r"descriptions\.safetensors is not a valid"),
        ("baselines/settings.json", '{"stepz": 1}', r"settings\.json is damaged"),
        ("generator/generator.json", "{}", r"generator\.json is damaged"),
    ],
)
def test_a_damaged_run_names_the_file(broken, file, text, message):
    (broken / file).write_text(text)
    with pytest.raises(RunError, match=message):
        evaluate_command(options(broken))


def test_a_bank_of_another_suite_is_refused(toy, broken):
    bank = DescriptionBank(torch.zeros(2, 4), torch.tensor([0, 99]))
    RunAssets(toy.suite, bank=bank).save(broken)
    with pytest.raises(RunError, match=r"descriptions\.safetensors is damaged"):
        RunAssets.load(broken)
    assert Zoo.load(broken / "baselines/zoo.safetensors", toy.suite)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"colours": None}, r"task\.json: key 'colours' is missing; it must hold some of"),
        ({"colours": [7]}, r"task\.json: key 'colours' must hold some of the numbers 0 to 4"),
        ({"descriptions": None}, r"task\.json: key 'descriptions' is missing"),
        ({"descriptions": []}, r"task\.json: key 'descriptions' must hold a list of sentences"),
        ({"descriptions": ["a", " "]}, "key 'descriptions' must hold a list of sentences"),
        ({"descriptions": "a"}, "key 'descriptions' must hold a list of sentences"),
    ],
)
def test_a_malformed_task_names_file_and_key(run, tmp_path, keys, message):
    folder = task(tmp_path / "tasks", **keys)
    with pytest.raises(UsageError, match=message):
        evaluate_command(options(run, folder))


def test_a_suite_says_what_it_cannot_do(toy, tmp_path):
    class Bare(TaskSuite):
        names = ("a",)
        sample = loss = score = None

    try:
        bare = Bare()
        with pytest.raises(UsageError, match="Bare takes no tasks from files"):
            bare.with_tasks(task(tmp_path / "tasks"))
        with pytest.raises(UsageError, match=r"Bare has no config\(\)"):
            bare.save(tmp_path)
        with pytest.raises(UsageError, match=r"Bare has no load_model\(\)"):
            bare.load_model(tmp_path)
        assert bare.key(0) == "a"
    finally:
        TaskSuite._registry.pop("Bare")
