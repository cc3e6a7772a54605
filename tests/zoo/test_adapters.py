"""Adapters trained in one stacked call are those trained one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hypergen.errors import WeightsError
from hypergen.specs import DeltaSpec, LoRASpec
from hypergen.targets import FunctionalTarget, LoRATarget
from hypergen.zoo import TaskSuite, train_multitask, train_weights


class Regressions(TaskSuite):
    """Task i: predict column i of the input. The same samples for every task."""

    def __init__(self):
        self.names = ("first", "second", "third")
        self.descriptions = {"train": [["a"], ["b"], ["c"]]}
        self.task_splits = {"train": [0, 1, 2]}

    def sample(self, tasks, samples, generator, split="train"):
        x = torch.randn(samples, 4, generator=generator)
        labels = torch.stack([x[:, t] for t in tasks]).flatten()
        return {"inputs": x.repeat(len(tasks), 1), "labels": labels, "tasks": tasks}

    def loss(self, output, batch):
        return (output[:, 0] - batch["labels"]).square().mean()

    def score(self, target, weights, tasks, split="test"):
        batch = self.sample(tasks, 64, torch.Generator().manual_seed(1))
        error = (target(weights, batch["inputs"])[:, 0] - batch["labels"]).square()
        return 1 / (1 + error.view(len(tasks), -1).mean(1))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))


@pytest.mark.parametrize("kind", ["lora", "delta"])
def test_stacked_equals_one_by_one(net, kind):
    spec = LoRASpec(net, r=2) if kind == "lora" else DeltaSpec(net)
    target = LoRATarget(net, spec) if kind == "lora" else FunctionalTarget(net, spec)
    suite = Regressions()
    together = train_weights(target, spec, suite, [0, 1, 2], steps=20)
    for i in range(3):
        alone = train_weights(target, spec, suite, [i], steps=20)
        torch.testing.assert_close(alone.flat(), together[i].flat(), rtol=1e-3, atol=1e-4)


def test_training_helps_and_is_seeded(net):
    spec = LoRASpec(net, r=2)
    target, suite = LoRATarget(net, spec), Regressions()
    tasks = torch.arange(3)
    a = train_weights(target, spec, suite, tasks, steps=150, lr=3e-2)
    b = train_weights(target, spec, suite, tasks, steps=150, lr=3e-2)
    assert torch.equal(a.flat(), b.flat())
    base = suite.score(target, spec.neutral(3), tasks)
    assert (suite.score(target, a, tasks) > base).all()


def test_one_multitask_adapter_cannot_tell_tasks_apart(net):
    spec = LoRASpec(net, r=2)
    target, suite = LoRATarget(net, spec), Regressions()
    tasks = torch.arange(3)
    shared = train_multitask(target, spec, suite, tasks, steps=150, lr=3e-2)
    own = train_weights(target, spec, suite, tasks, steps=150, lr=3e-2)
    assert len(shared) == 1
    score = suite.score(target, shared[[0, 0, 0]], tasks)
    assert (score < suite.score(target, own, tasks)).all()


def test_divergence_names_the_task(net):
    spec = LoRASpec(net, r=2)

    class Broken(Regressions):
        def loss(self, output, batch):
            return (
                output * torch.tensor([1.0, float("nan"), 1.0]).repeat_interleave(32)[:, None]
            ).sum()

    with pytest.raises(WeightsError, match="second"):
        train_weights(LoRATarget(net, spec), spec, Broken(), [0, 1, 2], steps=2)
