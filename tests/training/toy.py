"""Linear yes/no tasks on a frozen two-layer network, named by hashed sentences."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen.conditions import ConditionEncoder, HashingEncoder, TaskEncoder
from hypergen.generators import MLPGenerator, Objective
from hypergen.specs import LoRASpec
from hypergen.targets import make_target
from hypergen.training import GeneratorModule, TaskDataModule
from hypergen.zoo import TaskSuite

WORDS = ["red", "green", "blue", "round", "heavy", "old", "soft", "loud"]
WIDTH = 8


class Net(nn.Module):
    """The frozen target."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = nn.Linear(WIDTH, 16)
        self.last = nn.Linear(16, 2)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(self.first(x)))
        return out


class ToySuite(TaskSuite):
    """Task (i, j): is x_i + x_j positive? Named by two words in either order."""

    def __init__(self) -> None:
        pairs = [(i, j) for i in range(WIDTH) for j in range(i + 1, WIDTH)]
        self.names = tuple(f"{WORDS[i]}-{WORDS[j]}" for i, j in pairs)
        self.axes = torch.zeros(len(pairs), WIDTH)
        for row, pair in enumerate(pairs):
            self.axes[row, list(pair)] = 1.0
        words = [(WORDS[i], WORDS[j]) for i, j in pairs]
        self.descriptions = {
            "train": [[f"say yes if it is {a} and {b}", f"is it {b} or {a}"] for a, b in words],
            "val": [[f"tell me whether {a} {b}"] for a, b in words],
        }
        numbers = list(range(len(pairs)))
        self.task_splits = {
            "train": numbers[:20],
            "val": numbers[20:24],
            "heldout_tasks": numbers[24:],
        }
        self.sizes = [1.0 + task for task in numbers]

    def sample(self, tasks, samples, generator, split="train"):
        x = torch.randn(len(tasks), samples, WIDTH, generator=generator)
        labels = ((x * self.axes[tasks][:, None]).sum(-1) > 0).long()
        return {"inputs": x.flatten(0, 1), "labels": labels.flatten(), "tasks": tasks}

    def loss(self, output, batch):
        return F.cross_entropy(output, batch["labels"])

    def score(self, target, weights, tasks, split="test"):
        generator = torch.Generator().manual_seed({"val": 1, "test": 2}[split])
        x = torch.randn(64, WIDTH, generator=generator)  # the same for every task
        answers = target(weights, x.repeat(len(tasks), 1)).argmax(-1).view(len(tasks), -1)
        return (answers == (self.axes[tasks] @ x.T > 0)).float().mean(1)

    def config(self):
        return {}


class Shrink(Objective):
    """An objective of one's own, made from what the data module knows."""

    needs = frozenset()

    def __init__(self, spec, factor: float = 2.0) -> None:
        super().__init__()
        self.numel, self.factor = spec.numel, factor

    def forward(self, weights, batch):
        return self.factor * weights.flat().square().mean()


class ToyData(TaskDataModule):
    """The toy suite as a recipe names it.

    Args:
        width: Width of the hashed words.
        learnt: Condition on a trained table of task embeddings instead of sentences.
        tasks_per_batch: Tasks in a batch.
        samples_per_task: Samples of each.
        epoch: Batches of an epoch.
        temperature: See `TaskDataModule`.
        seed: Seed of the draws.
    """

    def __init__(
        self,
        width: int = 32,
        learnt: bool = False,
        tasks_per_batch: int = 8,
        samples_per_task: int = 4,
        epoch: int = 10,
        temperature: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            tasks_per_batch=tasks_per_batch,
            samples_per_task=samples_per_task,
            epoch=epoch,
            temperature=temperature,
            seed=seed,
        )
        self.width, self.learnt = width, learnt

    def build(self):
        suite = ToySuite()
        encoder: ConditionEncoder = HashingEncoder(self.width)
        if self.learnt:
            encoder = TaskEncoder(len(suite.names), 16)
            numbers = [[i] for i in range(len(suite.names))]
            suite.descriptions = {"train": numbers, "val": numbers}
        net = Net()
        torch.rand(3)  # building may draw as much as it likes
        return suite, encoder, make_target(net, LoRASpec(net, "all-linear", r=2))

    def build_zoo(self):
        generator = torch.Generator().manual_seed(7)
        flat = torch.randn(20, self.spec.numel, generator=generator) * 0.1
        return self.spec.from_flat(flat), self.suite.task_splits["train"]


def module(data: TaskDataModule, objective="task", dropout=0.1, init_seed=0, **settings):
    """A small generator in a module."""
    torch.manual_seed(init_seed)
    generator = MLPGenerator(data.spec, data.encoder, hidden=16, depth=1, dropout=dropout)
    settings = {"lr": 3e-3, **settings}
    return GeneratorModule(generator, objective, **settings)
