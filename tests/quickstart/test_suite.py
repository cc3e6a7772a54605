"""The quickstart's task suite: what is sampled, and what balanced accuracy means."""

from __future__ import annotations

import pytest
import torch

from hypergen._utils.seeding import generator as seeded
from hypergen.quickstart.network import DigitNet
from hypergen.quickstart.suite import DigitsSuite
from hypergen.specs import FullSpec, LoRASpec
from hypergen.targets import LoRATarget
from hypergen.zoo import train_weights


@pytest.fixture(scope="module")
def suite():
    return DigitsSuite(seed=0)


def test_samples_carry_the_right_answers_in_blocks_by_task(suite):
    tasks = torch.tensor([3, 3, 700, 11])
    batch = suite.sample(tasks, 40, seeded("t"))
    assert batch["inputs"].shape == (160, 64)
    assert batch["labels"].shape == (160,)
    images, labels = suite._images["train"], suite._labels["train"]
    for block, task in enumerate(tasks):
        for i in range(block * 40, block * 40 + 40):
            digits = labels[(images == batch["inputs"][i]).all(1)]
            assert all(suite.answers[task, d] == bool(batch["labels"][i]) for d in digits)
    assert 0.3 < batch["labels"].float().mean() < 0.7  # yes as often as no, whatever the subset


def test_samples_depend_on_the_generator_alone(suite):
    tasks = torch.tensor([1, 2])
    a, b, c = (suite.sample(tasks, 8, seeded(s))["inputs"] for s in ("a", "a", "b"))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_images_of_splits_are_disjoint(suite):
    rows = {s: {tuple(r.tolist()) for r in suite._images[s]} for s in ("train", "val", "test")}
    assert not rows["train"] & rows["test"]
    assert not rows["val"] & rows["test"]


@pytest.mark.parametrize("answer", ["perfect", "inverted", "constant"])
def test_balanced_accuracy_of_known_answers(suite, answer):
    tasks = torch.tensor([0, 900])  # a single digit, whose constant answer would score 0.9 plain
    weights = FullSpec(DigitNet(4)).initial(0)
    truth = suite.answers[tasks][:, suite._labels["test"]].flatten()
    yes = {"perfect": truth, "inverted": ~truth, "constant": torch.zeros_like(truth)}[answer]
    scores = suite.score(
        lambda w, x: torch.stack([~yes, yes], 1).float(),
        FullSpec(DigitNet(4)).from_flat(weights.expand(2, -1)),
        tasks,
    )
    expected = {"perfect": 1.0, "inverted": 0.0, "constant": 0.5}[answer]
    torch.testing.assert_close(scores, torch.full((2,), expected))


def test_stacked_adapters_learn_their_own_tasks(suite):
    torch.manual_seed(0)
    net = DigitNet(32)
    spec = LoRASpec(net, r=4)
    target = LoRATarget(net, spec)
    tasks = suite.task_splits["heldout_tasks"][:6]
    weights = train_weights(target, spec, suite, tasks, steps=120, lr=2e-2)
    scores = suite.score(target, weights, torch.tensor(tasks))
    others = suite.score(target, weights[[1, 2, 3, 4, 5, 0]], torch.tensor(tasks))
    assert scores.min() > 0.75
    assert others.mean() < 0.7
