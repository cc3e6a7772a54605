"""The quickstart's tasks as a TaskSuite: sampling, loss and balanced accuracy."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen.quickstart.images import load_images
from hypergen.quickstart.network import DigitNet, load_network
from hypergen.quickstart.questions import TASK_SPLITS, Task, build_tasks
from hypergen.specs import Weights
from hypergen.zoo import TaskSuite
from hypergen.zoo.files import TaskFile


class DigitsSuite(TaskSuite):
    """Yes/no questions about scikit-learn's digits.

    Args:
        seed: Seed of the split of the images, of the tasks and of their wordings.
        n_subsets: Tasks that name their digits.
        n_composed: Training tasks composed of training properties and digits.
        train_wordings: Descriptions of a training task.
        given: Further tasks, as `to_dict` writes those that came from files.
    """

    def __init__(
        self,
        seed: int = 0,
        n_subsets: int = 600,
        n_composed: int = 400,
        train_wordings: int = 8,
        given: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._config: dict[str, Any] = {
            "seed": seed,
            "n_subsets": n_subsets,
            "n_composed": n_composed,
            "train_wordings": train_wordings,
        }
        self._given = [dict(task) for task in given]
        images = load_images(seed)
        built = build_tasks(
            seed, n_subsets=n_subsets, n_composed=n_composed, train_wordings=train_wordings
        )
        self.tasks = (*built, *(_given_task(task) for task in self._given))
        self.names = tuple(task.name for task in self.tasks)
        wordings = sorted({split for task in self.tasks for split in task.descriptions})
        self.descriptions = {
            split: [list(task.descriptions.get(split, ())) for task in self.tasks]
            for split in wordings
        }
        self.task_splits = {
            split: [i for i, task in enumerate(self.tasks) if task.split == split]
            for split in (*TASK_SPLITS, *(["given"] if self._given else []))
        }
        self.answers = torch.tensor([task.answers for task in self.tasks])
        self._images: dict[str, Tensor] = {}
        self._labels: dict[str, Tensor] = {}
        self._by_digit: dict[str, tuple[Tensor, Tensor]] = {}
        for split in ("train", "val", "test"):
            labels = torch.from_numpy(getattr(images, f"{split}_labels"))
            self._images[split] = torch.from_numpy(getattr(images, split))
            self._labels[split] = labels
            # Images sorted by digit: a random image of a digit is one lookup.
            counts = torch.bincount(labels, minlength=10)
            self._by_digit[split] = (torch.argsort(labels, stable=True), counts)

    def config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**self._config, **({"given": self._given} if self._given else {})}

    def key(self, task: int) -> Hashable:
        """Tasks with the same ten answers are the same."""
        return self.tasks[task].answers

    def load_model(self, run: Path) -> DigitNet:
        """Rebuilds the frozen network from `target/` of a run folder; see `TaskSuite`."""
        return load_network(run / "target")

    def extend(self, files: list[TaskFile]) -> DigitsSuite:
        """A suite with the tasks of files, whose `answers` are ten booleans; see `TaskSuite`."""
        given = [
            {
                "name": file.name,
                "descriptions": list(file.descriptions),
                "answers": file.field("answers", "ten booleans, not all equal", _is_question),
            }
            for file in files
        ]
        return DigitsSuite(**self._config, given=[*self._given, *given])

    def images(self, split: str) -> tuple[Tensor, Tensor]:
        """Images `[n, 64]` of a split and their digits `[n]`."""
        return self._images[split], self._labels[split]

    def sample(
        self, tasks: Tensor, samples: int, generator: torch.Generator, split: str = "train"
    ) -> dict[str, Any]:
        """Draws images, half of them with the answer yes; see `TaskSuite.sample`."""
        order, counts = self._by_digit[split]
        shape = (len(tasks), samples)
        yes = torch.rand(shape, generator=generator) < 0.5
        # A random digit with the wanted answer: the largest of ten random numbers among them.
        fits = self.answers[tasks][:, None] == yes[..., None]
        digit = (torch.rand(*shape, 10, generator=generator) * fits).argmax(-1)
        start = counts.cumsum(0) - counts
        draw = torch.rand(shape, generator=generator)
        image = order[start[digit] + (draw * counts[digit]).long()]
        return {
            "inputs": self._images[split][image].flatten(0, 1),
            "labels": yes.long().flatten(),
            "tasks": tasks,
        }

    def loss(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Cross-entropy of yes and no."""
        return F.cross_entropy(output, batch["labels"])

    def score(
        self,
        target: Callable[[Weights, Any], Any],
        weights: Weights,
        tasks: Tensor,
        split: str = "test",
        wordings: Tensor | None = None,
    ) -> Tensor:
        """Balanced accuracy, `[B]`: mean of the shares of yes and no digits answered right."""
        images, labels = self._images[split], self._labels[split]
        truth = self.answers[tasks][:, labels]
        scores = []
        for part in torch.arange(len(weights)).split(64):  # bounds memory
            with torch.no_grad():
                logits = target(weights[part], images.repeat(len(part), 1))
            right = (logits.argmax(-1).view(len(part), -1) == truth[part].long()).float()
            yes = truth[part].float()
            hit = (right * yes).sum(1) / yes.sum(1)
            reject = (right * (1 - yes)).sum(1) / (1 - yes).sum(1)
            scores.append((hit + reject) / 2)
        return torch.cat(scores)


def _is_question(answers: Any) -> bool:
    is_list = isinstance(answers, list) and len(answers) == 10
    return is_list and all(isinstance(a, bool) for a in answers) and len(set(answers)) == 2


def _given_task(data: Mapping[str, Any]) -> Task:
    answers = tuple(data["answers"])
    descriptions = {"given": tuple(data["descriptions"])}
    return Task(data["name"], "given", "given", "given", answers, descriptions)
