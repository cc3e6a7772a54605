"""A packed run is small, says what it is, and works where the training tasks are not."""

from __future__ import annotations

import json

import pytest
import text_run
import torch
from text_run import tiny

from hypergen import cli, pretrained
from hypergen.errors import UsageError
from hypergen.evaluation.command import evaluate_command
from hypergen.evaluation.pack import pack_card
from hypergen.generators import load


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return text_run.make(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    return text_run.save(text, tmp_path_factory.mktemp("runs") / "text")


@pytest.fixture(scope="module")
def packed(text, run, tmp_path_factory):
    """Packed and shipped; then the training tasks go away."""
    folder = tmp_path_factory.mktemp("shipped") / "tiny"
    results = tmp_path_factory.mktemp("results") / "r.json"
    assert cli.main(["evaluate", str(run), "--no-oracle", "--json", str(results)]) == 0
    words = ["pack", str(run), "--out", str(folder), "--results", str(results)]
    assert cli.main([*words, "--license", "Apache-2.0", "--dtype", "bfloat16"]) == 0
    return folder, json.loads(results.read_text())


def test_its_card_holds_data_and_results(packed, text):
    folder, results = packed
    card = (folder / "README.md").read_text()
    assert "license: Apache-2.0" in card
    assert "- trained on: Copying (1)" in card
    assert "- held out: Kinds (2), Lists (1)" in card
    split = results["splits"]["heldout_tasks"]
    low, high = (100 * x for x in split["ci95"]["generated"])
    assert f"| generated | {100 * split['generated']:.1f} ({low:.1f}–{high:.1f}) |" in card
    assert "## Results" not in pack_card(text.generator, text.suite)


def test_its_numbers_are_rounded_and_no_text_of_a_task_is_in_it(packed, run):
    folder, _ = packed
    own, theirs = load(run).state_dict(), load(folder).state_dict()
    for name, tensor in own.items():
        rounded = tensor.to(torch.bfloat16).float() if tensor.is_floating_point() else tensor
        assert torch.equal(theirs[name], rounded.to(tensor.dtype)), name
    suite = (folder / "suite.json").read_text()
    assert "say the word again" not in suite
    data = json.loads(suite)["init_args"]
    assert data["tasks"] is None
    assert list(data["hashes"]) == ["echo"]


def test_it_is_evaluated_by_name_on_tasks_of_ones_own(packed, text, tmp_path, monkeypatch):
    folder, _ = packed
    monkeypatch.setattr(pretrained, "FOLDER", folder.parent)
    other = {**tiny.kinds(), "Definition": ["say yes or no", "yes is it ?"]}
    tasks = tiny.write_tasks(tmp_path / "tasks", other=other, echo=tiny.echo())
    found = evaluate_command(text_run.options("tiny", tasks=str(tasks), oracle_steps=1))
    assert found["splits"]["heldout_tasks"]["n"] == 1
    assert found["splits"]["seen_wordings"]["n"] == 1  # known by its hash alone
    methods = {"base", "incontext", "shuffled", "multitask", "generated", "oracle"}
    assert methods - {"shuffled"} <= set(found["splits"]["heldout_tasks"])
    with pytest.raises(UsageError, match="ships without tasks: give some with --tasks"):
        evaluate_command(text_run.options("tiny"))


def test_an_unknown_dtype_is_told(run, tmp_path, capsys):
    assert cli.main(["pack", str(run), "--out", str(tmp_path / "p"), "--dtype", "int3"]) == 2
    assert "--dtype int3" in capsys.readouterr().err
