"""The whole evaluation: the keys that outside checks read, and numbers that are right."""

from __future__ import annotations

import json

import pytest
import torch

from hypergen.errors import UsageError
from hypergen.evaluation import Split, default_splits, evaluate
from hypergen.evaluation.bootstrap import Bootstrap, Scores
from hypergen.evaluation.result import Evaluation, SplitResult, summarise

METHODS = {"base", "mean", "nearest", "shuffled", "multitask", "generated", "oracle"}


def test_the_splits_follow_the_names(toy):
    splits = default_splits(toy.suite)
    assert list(splits) == ["heldout_tasks", "heldout_wordings", "seen_wordings"]
    assert splits["heldout_tasks"] == Split(list(range(24, 30)), "train", 3)
    assert splits["heldout_wordings"].tasks == splits["seen_wordings"].tasks == list(range(18))
    assert splits["heldout_wordings"].wordings == "heldout"
    few = default_splits(toy.suite, most=5, seed=1)["heldout_wordings"].tasks
    assert len(few) == 5
    assert set(few) < set(range(18))


def test_the_json_has_exactly_the_agreed_keys(evaluation):
    found = json.loads(json.dumps(evaluation.to_dict()))
    assert set(found) == {"splits", "tasks", "seconds"}
    for split in found["splits"].values():
        gaps = {"gap_closed", "gap_closed_shuffled"}
        assert set(split) == {"n", "ci95", *METHODS, *gaps}
        assert set(split["ci95"]) == METHODS | gaps
        for name, (low, high) in split["ci95"].items():
            assert low <= split[name] <= high
        assert all(0 <= split[m] <= 1 for m in METHODS)
    assert len(found["tasks"]) == 24
    assert all(set(scores) == METHODS for scores in found["tasks"].values())


def test_means_are_those_of_the_tasks(evaluation, toy):
    found = evaluation.to_dict()
    names = [toy.suite.names[t] for t in toy.suite.task_splits["heldout_tasks"]]
    split = found["splits"]["heldout_tasks"]
    assert split["n"] == len(names)
    for method in METHODS:
        mean = sum(found["tasks"][name][method] for name in names) / len(names)
        assert split[method] == pytest.approx(mean, abs=1e-6)
    gap = (split["generated"] - split["base"]) / (split["oracle"] - split["base"])
    assert split["gap_closed"] == pytest.approx(gap)


def test_generated_and_shuffled_equal_a_loop_over_descriptions(evaluation, toy):
    suite, split = toy.suite, evaluation.splits["heldout_tasks"]
    for i, task in enumerate(split.tasks.tolist()):
        scores = [
            float(suite.score(toy.target, toy.generator.generate(text), torch.tensor([task])))
            for text in suite.descriptions["train"][task]
        ]
        assert float(split.scores["generated"].per_task[i]) == pytest.approx(
            sum(scores) / len(scores), abs=1e-6
        )
        spread = float(torch.tensor(scores).std(correction=0))
        assert float(split.scores["generated"].spread[i]) == pytest.approx(spread, abs=1e-5)
    shuffled = split.scores["shuffled"]
    candidates = {
        (i, j): float(
            suite.score(
                toy.target,
                toy.generator.generate(suite.descriptions["train"][int(split.tasks[j])]),
                split.tasks[i].repeat(3),
            ).mean()
        )
        for i in range(6)
        for j in range(6)
    }
    for i in range(6):  # another task's descriptions, never its own
        value = float(shuffled.per_task[i])
        assert any(abs(value - candidates[i, j]) < 1e-5 for j in range(6) if j != i)


def test_the_trained_generator_reads_its_description(evaluation):
    split = evaluation.to_dict()["splits"]["heldout_tasks"]
    assert split["oracle"] > 0.95
    assert split["generated"] > split["nearest"] > split["mean"]
    assert split["generated"] > 0.85
    assert split["shuffled"] < 0.6
    assert evaluation.splits["heldout_tasks"].versus["shuffled"][1][0] > 0.1


def test_a_baseline_that_does_not_apply_is_absent(toy):
    splits = {"one": Split([25], "train", 1)}
    found = evaluate(toy.generator, toy.target, toy.suite, splits, oracle_steps=0).to_dict()
    assert set(found["splits"]["one"]) == {"n", "base", "generated", "ci95"}
    assert set(found["tasks"][toy.suite.names[25]]) == {"base", "generated"}


def test_chunks_and_repeats_change_nothing(evaluation, toy):
    again = evaluate(
        toy.generator,
        toy.target,
        toy.suite,
        zoo=toy.zoo,
        multitask=toy.multitask,
        oracle_steps=100,
        oracle_options=toy.options,
        chunk=5,
    )
    for name, split in again.to_dict()["splits"].items():
        first = evaluation.to_dict()["splits"][name]
        for method, interval in split.pop("ci95").items():
            assert interval == pytest.approx(first["ci95"][method], abs=1e-6)
            assert split[method] == pytest.approx(first[method], abs=1e-6)


def test_wrong_splits_are_named(toy):
    def run(splits):
        evaluate(toy.generator, toy.target, toy.suite, splits)

    with pytest.raises(UsageError, match=r"'heldot', which .* Did you mean 'heldout'\?"):
        run({"a": Split([1], "heldot")})
    with pytest.raises(UsageError, match="split 'a' has no task with a description in 'given'"):
        run({"a": Split([1], "given")})
    with pytest.raises(UsageError, match="nothing to evaluate"):
        run({})


def test_weights_are_nearer_to_their_own_oracle(evaluation):
    comparison = evaluation.splits["seen_wordings"].weights
    assert comparison.cosine.shape == (18,)
    assert comparison.cosine.nanmean() > comparison.cosine_other.nanmean()


def result(**scores: torch.Tensor) -> Evaluation:
    values = {m: Scores.of(v) for m, v in scores.items()}
    count = len(scores["generated"])
    summary = summarise(values, Bootstrap(count))
    names = [str(i) for i in range(count)]
    split = SplitResult("a", torch.arange(count), names, "train", values, **summary)
    return Evaluation({"a": split})


def test_notes_say_where_it_does_not_win():
    random = torch.Generator().manual_seed(0)
    base = 0.5 + 0.02 * torch.rand(40, generator=random)
    good = result(base=base, nearest=base, generated=base + 0.3, oracle=base + 0.4)
    assert good.notes() == []
    assert good.splits["a"].gaps["gap_closed"] == pytest.approx(0.75, abs=1e-4)
    tie = base + 0.1 * torch.randn(40, generator=random)
    (note,) = result(base=base, nearest=tie, generated=base, oracle=base + 0.4).notes()[1:]
    assert note.startswith("a: generated does not clearly beat the nearest description (")
    bad = result(base=base, generated=base - 0.1)
    (note,) = bad.notes()
    assert "is below the unchanged base (difference -0.100, 95% CI -0.100 to -0.100, 40" in note
    assert note in bad.to_table()


def test_no_gap_is_no_gap_closed():
    half = torch.full((9,), 0.5)
    found = result(base=half, generated=half, oracle=half).to_dict()["splits"]["a"]
    assert "gap_closed" not in found
    assert "gap_closed" not in found["ci95"]


def test_the_table_has_a_row_for_each_split(evaluation):
    lines = evaluation.to_table().splitlines()
    assert lines[0].split()[:9] == [
        "split", "tasks", "base", "mean", "nearest", "shuffled", "multitask", "generated", "oracle"
    ]  # fmt: skip
    row = lines[2].split()
    split = evaluation.to_dict()["splits"]["heldout_tasks"]
    assert row[0] == "heldout_tasks"
    assert float(row[7]) == pytest.approx(100 * split["generated"], abs=0.051)
