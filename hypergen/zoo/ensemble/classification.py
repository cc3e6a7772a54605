"""Classification of images: all classes, or whether the class is one of a set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import UsageError
from hypergen._utils.seeding import generator
from hypergen.zoo.ensemble.data import ImageSource, LabelledImages
from hypergen.zoo.ensemble.problem import Problem
from hypergen.zoo.ensemble.wordings import describe_classes, describe_subset
from hypergen.zoo.store import Task


class Classification(Problem):
    """Labelled images; cross-entropy, accuracy.

    Label subsets are the binary tasks of "Recurrent Diffusion for Large-Scale Parameter Generation"
    (Wang et al., 2025, arXiv:2501.11587): for each set of classes, is the image's class in the set?
    Networks have two outputs then, no and yes. A set and its complement ask the same question
    the other way round, so they are of one family and never straddle splits.

    Args:
        source: The images.
        labels: `"classes"` (one task), `"subsets"` (a task for every set of classes but the empty
            and the full one), or a list of sets of class numbers.
        n_tasks: How many of the sets to draw; all when not given.
        seed: Seed of that draw.

    Raises:
        UsageError: A set is empty, full, named twice or holds an unknown class, or there are fewer
            sets than `n_tasks`.
    """

    def __init__(
        self,
        source: ImageSource,
        labels: Literal["classes", "subsets"] | Sequence[Sequence[int]] = "classes",
        n_tasks: int | None = None,
        seed: int = 0,
    ) -> None:
        self.source, self.labels, self.n_tasks, self.seed = source, labels, n_tasks, seed
        count = len(source.classes)
        if labels == "classes":
            self.subsets: list[tuple[int, ...]] = []
        elif labels == "subsets":
            sets = range(1, 2**count - 1)
            self.subsets = [tuple(c for c in range(count) if s >> c & 1) for s in sets]
        elif isinstance(labels, str):
            raise UsageError(
                "labels is 'classes', 'subsets' or a list of lists of class numbers, "
                f"not {labels!r}"
            )
        else:
            self.subsets = [_checked(subset, count) for subset in labels]
            if not self.subsets or len(set(self.subsets)) < len(self.subsets):
                raise UsageError("labels must list at least one set of classes, and none twice")
        if n_tasks is not None:
            choices = len(self.subsets) or 1
            if not 1 <= n_tasks <= choices:
                raise UsageError(f"n_tasks must be between 1 and {choices}, not {n_tasks}")
            if self.subsets:
                draw = torch.randperm(choices, generator=generator("subsets", seed))[:n_tasks]
                self.subsets = [self.subsets[i] for i in sorted(draw.tolist())]

    @property
    def outputs(self) -> int:
        """Number of classes, or 2 for sets: no and yes."""
        return 2 if self.subsets else len(self.source.classes)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """`"classes"`, or one task a set, named by its classes."""
        names, noun = self.source.classes, self.source.noun
        if not self.subsets:
            return {"classes": Task(describe_classes(names, noun), "classes")}
        tasks = {}
        for subset in self.subsets:
            inside = [names[c] for c in subset]
            outside = [name for name in names if name not in inside]
            with_first, without = (inside, outside) if 0 in subset else (outside, inside)
            tasks["+".join(inside)] = Task(
                describe_subset(inside, outside, noun),
                family=f"{'+'.join(with_first)}|{'+'.join(without)}",
                metadata={"classes": inside},
            )
        return tasks

    @cached_property
    def data(self) -> LabelledImages:
        """The images, read when first asked for."""
        return self.source.load()

    @cached_property
    def answers(self) -> Tensor:
        """`[tasks, classes]`: the answer of every task for every class."""
        classes = torch.arange(len(self.source.classes))
        if not self.subsets:
            return classes[None]
        return torch.stack([torch.isin(classes, torch.tensor(s)) for s in self.subsets]).long()

    def inputs(self, split: str) -> Tensor:
        """Images `[N, C, H, W]`."""
        self.check_split(split)
        return self.data.images[split]

    def targets(self, split: str, tasks: Tensor, index: Tensor) -> Tensor:
        """Answers `[..., M, B]`."""
        self.check_split(split)
        classes = torch.take(self.data.labels[split], index)
        # One flat look-up: indexing by two tensors costs several times as much.
        return torch.take(self.answers, classes + len(self.source.classes) * tasks[:, None])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(outputs, targets)

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and correctness of every sample."""
        losses = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return {
            "loss": losses.view(targets.shape),
            "accuracy": (outputs.argmax(-1) == targets).float(),
        }

    def output_gradient(self, outputs: Tensor, targets: Tensor, out: Tensor) -> bool:
        """Softmax minus the answer, over the batch."""
        torch.softmax(outputs, 1, out=out)
        answers = targets[:, None]
        out.scatter_add_(1, answers, _minus_one(out.device).expand(answers.shape))
        out.mul_(1 / targets.shape[1])
        return True


@cache
def _minus_one(device: torch.device) -> Tensor:
    return torch.tensor(-1.0, device=device)


def _checked(subset: Sequence[int], classes: int) -> tuple[int, ...]:
    chosen = tuple(sorted(set(subset)))
    if len(chosen) < len(subset) or not 0 < len(chosen) < classes:
        raise UsageError(
            f"the set {list(subset)} must hold some but not all of the {classes} classes, each once"
        )
    if chosen[0] < 0 or chosen[-1] >= classes:
        raise UsageError(f"the set {list(subset)} holds a class outside 0…{classes - 1}")
    return chosen
