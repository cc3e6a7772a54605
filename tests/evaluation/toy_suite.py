"""A suite small enough to train in a second: which colours are meant by a sentence."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hypergen.conditions import HashingEncoder
from hypergen.evaluation.zoo import Zoo
from hypergen.generators import Generator, MLPGenerator
from hypergen.specs import LoRASpec
from hypergen.targets import LoRATarget
from hypergen.zoo import TaskSuite, train_multitask, train_weights

COLOURS = ("red", "blue", "green", "white", "black")
TEMPLATES = {
    "train": ["say yes to {}", "is it {}", "the colour is {}"],
    "heldout": ["answer yes whenever you see {}", "{} is right"],
}


class ToyNet(nn.Module):
    """8 numbers → two logits, from seed 0; the output layer is at chance."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.hidden = nn.Linear(8, 16)
        self.out = nn.Linear(16, 2)
        for parameter in self.parameters():
            parameter.data = 0.4 * torch.randn(parameter.shape, generator=random)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.hidden(x)))


class EvaluationSuite(TaskSuite):
    """Yes/no tasks: is the noisy point one of these colours?"""

    def __init__(self, seed: int = 0, extra: list[dict[str, Any]] | None = None) -> None:
        self.seed, self.extra = seed, list(extra or [])
        subsets = [
            frozenset(c) for size in (1, 2, 3, 4) for c in itertools.combinations(range(5), size)
        ]
        order = torch.randperm(len(subsets), generator=torch.Generator().manual_seed(seed))
        subsets = [subsets[i] for i in order]
        self.subsets = subsets + [frozenset(e["colours"]) for e in self.extra]
        own = ["+".join(COLOURS[i] for i in sorted(s)) for s in subsets]
        self.names = (*own, *(e["name"] for e in self.extra))
        words = [[COLOURS[i] for i in sorted(s)] for s in subsets]
        self.descriptions = {
            split: [[t.format(" or ".join(w)) for t in templates] for w in words]
            + [[] for _ in self.extra]
            for split, templates in TEMPLATES.items()
        }
        self.descriptions["given"] = [[] for _ in subsets] + [e["descriptions"] for e in self.extra]
        self.task_splits = {
            "train": list(range(18)),
            "val": list(range(18, 24)),
            "heldout_tasks": list(range(24, 30)),
            "given": list(range(30, 30 + len(self.extra))),
        }
        self.truth = torch.zeros(len(self.subsets), 5, dtype=torch.long)
        for row, subset in enumerate(self.subsets):
            self.truth[row, list(subset)] = 1
        random = torch.Generator().manual_seed(7)
        self.centres = 2 * torch.randn(5, 8, generator=random)
        self.labels = torch.arange(5).repeat(12)
        self.points = {
            split: self.centres[self.labels] + 0.3 * torch.randn(60, 8, generator=random)
            for split in ("train", "val", "test")
        }

    def config(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def key(self, task: int) -> frozenset[int]:
        return self.subsets[task]

    def load_model(self, run: Path) -> nn.Module:
        return ToyNet()

    def extend(self, files: list[Any]) -> EvaluationSuite:
        def valid(value: Any) -> bool:
            return isinstance(value, list) and bool(value) and set(value) < set(range(5))

        extra = [
            {
                "name": f.name,
                "descriptions": list(f.descriptions),
                "colours": f.field("colours", "some of the numbers 0 to 4", valid),
            }
            for f in files
        ]
        return EvaluationSuite(self.seed, self.extra + extra)

    def sample(self, tasks, samples, generator, split="train"):
        rows = torch.randint(60, (len(tasks), samples), generator=generator)
        labels = self.truth[tasks].gather(1, self.labels[rows])
        return {"inputs": self.points[split][rows].flatten(0, 1), "labels": labels.flatten()}

    def loss(self, output, batch):
        return F.cross_entropy(output, batch["labels"])

    def score(self, target, weights, tasks, split="test"):
        truth = self.truth[tasks][:, self.labels]
        logits = target(weights, self.points[split].repeat(len(weights), 1))
        right = (logits.argmax(-1).view(len(weights), -1) == truth).float()
        return sum((right * (truth == side)).sum(1) / (truth == side).sum(1) / 2 for side in (0, 1))


class Toy:
    """Everything that an evaluation needs, trained."""

    def __init__(self, steps: int = 150) -> None:
        self.suite = EvaluationSuite()
        self.model = ToyNet()
        self.spec = LoRASpec(self.model, ["hidden", "out"], r=2)
        self.target = LoRATarget(self.model, self.spec)
        train = self.suite.task_splits["train"]
        options = {"samples": 24, "lr": 2e-2}
        weights = train_weights(self.target, self.spec, self.suite, train, steps=100, **options)
        self.options = options
        self.zoo = Zoo(weights, train)
        self.multitask = train_multitask(self.target, self.spec, self.suite, train, steps=40)
        torch.manual_seed(0)
        self.generator: Generator = MLPGenerator(self.spec, HashingEncoder(128), hidden=64, depth=1)
        texts, tasks = [], []
        for task in train:
            texts += self.suite.descriptions["train"][task]
            tasks += [task] * len(self.suite.descriptions["train"][task])
        condition, numbers = self.generator.encode(text=texts), torch.tensor(tasks)
        optimizer = torch.optim.Adam(self.generator.parameters(), 5e-3)
        random = torch.Generator().manual_seed(0)
        for _ in range(steps):
            batch = self.suite.sample(numbers, 16, random)
            loss = self.suite.loss(self.target(self.generator(condition), batch["inputs"]), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.generator.eval()
