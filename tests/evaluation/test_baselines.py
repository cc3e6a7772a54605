"""Every baseline is what its name says, against a loop over tasks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hypergen.errors import RunError, UsageError
from hypergen.evaluation.baselines import DescriptionBank, Scorer, derangement, describe, oracles
from hypergen.evaluation.zoo import Zoo


def test_scores_of_pairs_equal_one_call_a_pair(toy):
    row = torch.tensor([3, 0, 3, 17, 0])
    tasks = torch.tensor([25, 1, 25, 17, 2])
    scorer = Scorer(toy.suite, toy.target, chunk=2)
    found = scorer.score(toy.zoo.weights, row, tasks)
    one = [
        toy.suite.score(toy.target, toy.zoo.weights[int(r)], tasks[i : i + 1])
        for i, r in enumerate(row)
    ]
    assert torch.allclose(found, torch.cat(one))


def test_equal_pairs_are_scored_once(toy, monkeypatch):
    seen = []
    score = toy.suite.score

    def counting(target, weights, tasks, split):
        seen.extend(tasks.tolist())
        return score(target, weights, tasks, split)

    monkeypatch.setattr(toy.suite, "score", counting)
    zero = torch.zeros(6, dtype=torch.long)
    Scorer(toy.suite, toy.target).score(toy.multitask, zero, torch.tensor([1, 1, 2, 1, 2, 5]))
    assert sorted(seen) == [1, 2, 5]


def test_the_base_is_the_unchanged_network(toy):
    tasks = torch.arange(30)
    base = Scorer(toy.suite, toy.target, chunk=7).base(tasks)
    neutral = toy.suite.score(toy.target, toy.spec.neutral(30), tasks)
    assert torch.equal(base, neutral)
    assert 0.35 < float(base.mean()) < 0.65


@pytest.mark.parametrize("keys", ["abcdefg", "aabbccdd", "aaabcd", "ab", "aaabbb"])
def test_no_task_is_shuffled_onto_one_of_its_own_kind(keys):
    for seed in range(20):
        partner = derangement(list(keys), seed)
        assert sorted(partner.tolist()) == list(range(len(keys)))
        assert all(keys[i] != keys[int(p)] for i, p in enumerate(partner))
    assert len({tuple(derangement(list(keys), s).tolist()) for s in range(20)}) > 1 or keys == "ab"


def test_tasks_without_another_one_are_left_out():
    assert derangement(["a"]).tolist() == [-1]
    partner = derangement(list("aaab"), 1)
    assert (partner >= 0).sum() == 2
    assert all("aaab"[i] != "aaab"[int(p)] for i, p in enumerate(partner) if p >= 0)


def test_descriptions_keep_their_task(toy):
    texts, unit = describe(toy.suite, [5, 2], "train", 2)
    assert texts == toy.suite.descriptions["train"][5][:2] + toy.suite.descriptions["train"][2][:2]
    assert unit.tolist() == [0, 0, 1, 1]


def test_the_nearest_description_is_that_of_a_loop(toy):
    train = toy.suite.task_splits["train"]
    bank = DescriptionBank.encode(toy.generator, toy.suite, train)
    sentences = ["say yes to red or black", "is it white"]
    pooled = toy.generator.encode(text=sentences).pooled
    for vector, found in zip(pooled, bank.nearest(pooled, chunk=1), strict=True):
        cosines = [float(F.cosine_similarity(vector, other, dim=0)) for other in bank.pooled]
        assert found == bank.tasks[cosines.index(max(cosines))]
    seen = toy.suite.descriptions["train"][train[4]]
    assert bank.nearest(toy.generator.encode(text=seen).pooled).tolist() == [train[4]] * 3


def test_a_bank_needs_descriptions(toy):
    with pytest.raises(UsageError, match="no training task has a description in 'given'"):
        DescriptionBank.encode(toy.generator, toy.suite, [0, 1], "given")


def test_the_zoo_finds_the_first_network_of_a_task(toy):
    zoo = Zoo(toy.zoo.weights[torch.tensor([4, 5, 6, 7])], [9, 2, 9, 30])
    assert zoo.rows(torch.tensor([9, 3, 30, 2, 99, 0])).tolist() == [0, -1, 3, 1, -1, -1]
    assert torch.allclose(zoo.mean().flat()[0], zoo.weights.flat().mean(0))
    with pytest.raises(UsageError, match="a zoo of 4 networks has 1 task"):
        Zoo(zoo.weights, [1])


def test_the_zoo_is_saved_by_names(toy, tmp_path):
    toy.zoo.save(tmp_path / "zoo.safetensors", toy.suite)
    again = Zoo.load(tmp_path / "zoo.safetensors", toy.suite)
    assert torch.equal(again.weights.flat(), toy.zoo.weights.flat())
    assert torch.equal(again.tasks, toy.zoo.tasks)
    other = type(toy.suite)()
    other.names = tuple(f"new {name}" for name in other.names)
    with pytest.raises(RunError, match="which is not in the suite"):
        Zoo.load(tmp_path / "zoo.safetensors", other)
    toy.multitask.save(tmp_path / "other.safetensors")
    with pytest.raises(RunError, match="does not say which tasks"):
        Zoo.load(tmp_path / "other.safetensors", toy.suite)


def test_oracles_come_from_the_zoo_where_it_has_them(toy):
    tasks = torch.tensor([24, 3, 26])
    found = oracles(toy.target, toy.suite, tasks, toy.zoo, steps=60, chunk=1, **toy.options)
    rows = found.rows(tasks)
    assert (rows >= 0).all()
    assert torch.equal(found.weights[rows[1:2]].flat(), toy.zoo.weights[3].flat())
    scores = Scorer(toy.suite, toy.target).score(found.weights, rows, tasks)
    assert float(scores.min()) > 0.9
    assert oracles(toy.target, toy.suite, tasks, toy.zoo, steps=0) is None
    assert len(oracles(toy.target, toy.suite, tasks[1:2], toy.zoo, steps=0)) == 1
