"""Tuning on demonstrations beside the same from scratch, on tasks that were not trained on."""

from __future__ import annotations

import json

import pytest
import torch
from toy_suite import Toy

from hypergen.cli import main
from hypergen.errors import UsageError
from hypergen.evaluation import RunAssets
from hypergen.evaluation.evaluate import default_splits
from hypergen.evaluation.refinement import evaluate_refinement
from hypergen.evaluation.refinement_result import Curve
from hypergen.zoo import demos_of, refine


@pytest.fixture(scope="module")
def splits(toy: Toy):
    return {"heldout_tasks": default_splits(toy.suite, limit=1)["heldout_tasks"]}


@pytest.fixture(scope="module")
def found(toy: Toy, splits):
    return evaluate_refinement(
        toy.generator,
        toy.target,
        toy.suite,
        splits,
        steps=(0, 3, 12),
        demos=12,
        curve=30,
        rates=(1e-2, 3e-2),
        zoo=toy.zoo,
        multitask=toy.multitask,
        oracle_steps=60,
        oracle_options=toy.options,
    )


def test_no_steps_are_the_generated_weights_and_the_base(toy, found):
    split = found.splits["heldout_tasks"]
    tasks = torch.tensor(toy.suite.task_splits["heldout_tasks"])
    texts = [toy.suite.descriptions["train"][task][0] for task in tasks.tolist()]
    with torch.no_grad():
        expected = toy.suite.score(toy.target, toy.generator.generate(texts), tasks)
    assert torch.allclose(split.rows[0]["refined"].values, expected)
    assert torch.allclose(split.rows[0]["searched"].values, expected)
    assert torch.allclose(split.rows[0]["scratch"].values, split.fixed["base"].values)


def test_each_score_is_that_of_the_tuned_weights(toy, found):
    split = found.splits["heldout_tasks"]
    tasks = torch.tensor(toy.suite.task_splits["heldout_tasks"])
    start = toy.spec.from_flat(toy.spec.initial(0).expand(len(tasks), -1))
    tuned, _ = refine(
        start,
        toy.target,
        demos_of(toy.suite, tasks, 12),
        steps=12,
        lr=found.settings["learning_rates"]["scratch"],
    )
    with torch.no_grad():
        scores = toy.suite.score(toy.target, tuned, tasks)
    assert torch.allclose(split.rows[12]["scratch"].values, scores)
    assert split.rows[12]["scratch"].mean > split.rows[0]["scratch"].mean + 0.1
    assert split.rows[12]["refined"].mean > split.rows[0]["refined"].mean


def test_the_curve_counts_steps_until_the_score(toy, found):
    curve = found.splits["heldout_tasks"].curve
    assert set(curve.first) == {"generated", "scratch"}
    for at in curve.first.values():
        assert bool(((at >= -1) & (at <= 30)).all())
    until = Curve(30, {"scratch": torch.tensor([-1, 4, 0])}).until("scratch")
    assert until.tolist() == [30, 4, 0]


def test_differences_are_paired_and_told(found):
    split = found.splits["heldout_tasks"]
    told = found.to_dict()["splits"]["heldout_tasks"]
    gain = told["differences"]["12"]["refined_over_scratch"]
    assert gain["mean"] == pytest.approx(
        split.rows[12]["refined"].mean - split.rows[12]["scratch"].mean
    )
    assert gain["ci"][0] <= gain["mean"] <= gain["ci"][1]
    assert "refined_over_generated" not in told["differences"]["0"]
    json.dumps(told)
    table = found.to_table()
    for words in ("condition searched", "from scratch", "of the oracle, start generated", "12"):
        assert words in table


def test_a_learning_rate_is_chosen_for_each_method(found):
    assert set(found.settings["learning_rates"]) == {"refined", "searched", "multitask", "scratch"}
    assert set(found.settings["learning_rates"].values()) <= {1e-2, 3e-2}
    assert len(found.settings["chosen_on"]) == 6


def test_the_command(toy, tmp_path, capsys):
    toy.generator.save_pretrained(tmp_path / "generator")
    RunAssets(toy.suite, toy.zoo, settings={"oracle_steps": 20}).save(tmp_path)
    words = ["evaluate", str(tmp_path), "--refine-steps", "0", "2", "--refine-demos", "8"]
    out = tmp_path / "result.json"
    assert main([*words, "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert set(result["splits"]) == {"heldout_tasks"}  # not those that were trained on
    assert set(result["splits"]["heldout_tasks"]["steps"]) == {"0", "2"}
    assert "8 demonstrations a task" in capsys.readouterr().out


def test_bad_numbers_are_told(toy, splits):
    with pytest.raises(UsageError, match="numbers of steps of 0 or more"):
        evaluate_refinement(toy.generator, toy.target, toy.suite, splits, steps=())
    with pytest.raises(UsageError, match="give at least 1"):
        demos_of(toy.suite, [0], 0)
