"""Whole networks for tasks that no training network was trained on, beside what copying gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import UsageError
from hypergen._utils.figures import new_figure, png, tidy
from hypergen._utils.io import write_json
from hypergen._utils.progress import progress
from hypergen._utils.seeding import generator as seeded
from hypergen.evaluation.bootstrap import Bootstrap, Scores
from hypergen.evaluation.table import aligned, percent, span
from hypergen.evaluation.zoo_networks import ZooNetworks
from hypergen.generators import Generator
from hypergen.zoo.store import Zoo

LABELS = {
    "generated": "generated",
    "best": "best of the samples, by val",
    "trained": "trained for the task",
    "nearest": "network of the nearest task",
    "linear": "linear map of the condition",
    "mean": "mean network",
    "shuffled": "another task's condition",
    "majority": "most frequent answer",
}

_PENALTIES = torch.logspace(-4, 4, 17, dtype=torch.float64).tolist()


@dataclass(frozen=True, eq=False)
class Unseen:
    """What an evaluation on unseen tasks found.

    Attributes:
        tasks: Names of the tasks.
        scores: Method → accuracy on test samples, one or more for each family of tasks (a set and
            its complement are one family: they are no two independent tasks).
        families: Number of families.
        samples: Networks generated for each task.
        distance: `[tasks]`, distance of the condition to that of the nearest training task.
        resamples: Resamples of the bootstrap.
        seed: Its seed.
    """

    tasks: list[str]
    scores: dict[str, Scores]
    families: int
    samples: int
    distance: Tensor
    resamples: int = 2000
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form, with intervals and the differences to what is generated."""
        draws = Bootstrap(self.families, self.resamples, self.seed)
        generated = self.scores["generated"]
        methods = {}
        for name, scores in self.scores.items():
            methods[name] = {
                "label": LABELS[name],
                "accuracy": scores.mean,
                "ci": list(draws.interval(draws.means(scores))),
                "generated_minus_it": generated.mean - scores.mean,
                "difference_ci": list(draws.difference(generated, scores)),
            }
        return {
            "tasks": self.tasks,
            "families": self.families,
            "samples": self.samples,
            "distance_to_nearest": {
                "mean": float(self.distance.mean()),
                "values": self.distance.tolist(),
            },
            "methods": methods,
        }

    def to_table(self) -> str:
        """A row for each method, in percent."""
        found = self.to_dict()["methods"]
        rows = [["accuracy on unseen tasks", "mean", "95% CI", "generated minus it", "95% CI"]]
        for told in found.values():
            cells = [told["label"], percent(told["accuracy"]), span(told["ci"])]
            difference = [f"{100 * told['generated_minus_it']:+.1f}"]
            difference += [span(told["difference_ci"], "+.1f")]
            rows.append(cells + (["", ""] if told["label"] == "generated" else difference))
        title = (
            f"{len(self.tasks)} unseen tasks of {self.families} families, {self.samples} networks "
            f"each; the nearest training task is {float(self.distance.mean()):.2f} away on average"
        )
        return "\n".join([title, *aligned(rows)])

    def save(self, folder: str | Path) -> list[Path]:
        """Writes `unseen.json` and `unseen.png`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "unseen.json", folder / "unseen.png"]
        write_json(paths[0], self.to_dict(), nonfinite="null")
        paths[1].write_bytes(self.plot())
        return paths

    def plot(self) -> bytes:
        """Each method's accuracy with its interval."""
        found = self.to_dict()["methods"]
        figure = new_figure(7.2, 0.45 * len(found) + 1.1)
        axis = figure.subplots()
        for place, (name, told) in enumerate(reversed(found.items())):
            color = "#D55E00" if name == "generated" else "#0072B2"
            low, high = told["ci"]
            axis.plot([100 * low, 100 * high], [place, place], color=color, linewidth=2)
            axis.plot([100 * told["accuracy"]], [place], "o", color=color)
        axis.set_yticks(range(len(found)), [t["label"] for t in reversed(found.values())])
        tidy(axis, "Networks for tasks that none was trained on", "test accuracy, %")
        return png(figure)


def evaluate_unseen(
    generator: Generator,
    train: Zoo,
    test: Zoo,
    conditions: Mapping[str, Any],
    *,
    input_name: str = "vector",
    samples: int = 3,
    split: str = "test",
    seed: int = 0,
    resamples: int = 2000,
) -> Unseen:
    """Generates networks for the tasks of the test split and scores them on their tasks.

    RPG (Wang et al., 2025, arXiv:2501.11587) reports the accuracy on unseen binary tasks alone. A
    training task at Hamming distance 1 asks for the same answer for nine digits of ten, so that its
    network, copied, is right most of the time: the row "network of the nearest task". The other
    rows are a ridge regression from conditions to weights (its penalty chosen by leave-one-out
    error, in closed form), the mean network, a network generated for another unseen task, the
    answer that is most frequent in training, and the zoo's own network of the task.

    Args:
        generator: Takes the conditions under `input_name`.
        train: Its training networks.
        test: Networks of other tasks.
        conditions: Task → its condition; for tasks of both splits.
        input_name: Keyword of `Generator.generate`.
        samples: Networks to generate for each task.
        split: Samples to score on.
        seed: Seed of the draws.
        resamples: Resamples of the bootstrap.

    Raises:
        UsageError: A task of a split has no condition, or tasks of the splits are the same.
    """
    networks = ZooNetworks(train)
    seen = sorted({row.task for row in train.rows})
    tasks = sorted({row.task for row in test.rows})
    both = sorted(set(seen) & set(tasks))
    if both:
        raise UsageError(f"task {both[0]!r} is in training too: it is not unseen")
    for task in (*seen, *tasks):
        if task not in conditions:
            raise UsageError(f"task {task!r} has no condition")
    family = _families(test, tasks)
    families = int(family.max()) + 1
    known = [conditions[task] for task in seen]
    wanted = [conditions[task] for task in tasks]
    encoded = {
        "seen": _vectors(generator, input_name, known),
        "tasks": _vectors(generator, input_name, wanted),
    }
    distance, place = torch.cdist(encoded["tasks"], encoded["seen"]).min(1)
    flat = train.flat().float()
    row_of = {row.task: i for i, row in reversed(list(enumerate(train.rows)))}
    first = torch.tensor([row_of[task] for task in seen])
    own = {row.task: i for i, row in reversed(list(enumerate(test.rows)))}

    drawn = []
    for part in progress(torch.arange(len(tasks)).split(32), desc="generating", unit="batch"):
        given = generator.encode(**{input_name: [wanted[i] for i in part.tolist()]})
        made = generator.generate(condition=given, n=samples, seed=seed)
        drawn.append(made.flat().float().cpu())
    generated = torch.cat(drawn)
    repeated = [task for task in tasks for _ in range(samples)]

    def accuracy(weights: Tensor, names: list[str], *, stored: bool = False) -> Tensor:
        return networks.score(weights, names, split, generated=not stored)["accuracy"]

    of_all = accuracy(generated, repeated).view(-1, samples)
    moved = torch.tensor(_others(family, seed))
    values = {
        "generated": of_all.mean(1),
        "trained": accuracy(test.flat([own[task] for task in tasks]).float(), tasks, stored=True),
        "nearest": accuracy(flat[first[place]], tasks, stored=True),
        "linear": accuracy(_ridge(encoded["seen"], flat[first], encoded["tasks"]), tasks),
        "mean": accuracy(flat.mean(0).expand(len(tasks), -1), tasks),
        "shuffled": accuracy(generated.view(len(tasks), samples, -1)[moved, 0], tasks),
        "majority": networks.majority(tasks, split),
    }
    if samples > 1:
        by_val = networks.score(generated, repeated, "val", generated=True)["accuracy"]
        chosen = by_val.view(-1, samples).argmax(1, keepdim=True)
        values["best"] = of_all.gather(1, chosen)[:, 0]
    scores = {name: Scores(v.double(), family, families) for name, v in values.items()}
    scores = {name: scores[name] for name in LABELS if name in scores}
    return Unseen(tasks, scores, families, samples, distance, resamples, seed)


def _vectors(generator: Generator, name: str, conditions: list[Any]) -> Tensor:
    """`[n, D]`: numbers as they are, other conditions by their normalised embedding."""
    if name == "vector":
        return torch.tensor(conditions, dtype=torch.float32)
    with torch.no_grad():
        return F.normalize(generator.encode(**{name: conditions}).pooled.float().cpu(), dim=-1)


def _families(zoo: Zoo, tasks: list[str]) -> Tensor:
    """`[tasks]`, number of the family of each."""
    number: dict[str, int] = {}
    return torch.tensor([number.setdefault(zoo.tasks[t].family or t, len(number)) for t in tasks])


def _others(family: Tensor, seed: int) -> list[int]:
    """For each task another one, of another family where there is one."""
    order = torch.randperm(len(family), generator=seeded("unseen", seed)).tolist()
    out = []
    for i, own in enumerate(family.tolist()):
        start = order.index(i)
        ring = order[start + 1 :] + order[:start]
        out.append(next((j for j in ring if int(family[j]) != own), ring[0] if ring else i))
    return out


def _ridge(x: Tensor, y: Tensor, new: Tensor) -> Tensor:
    """Ridge regression `[N, D]` → `[N, M]` at `[P, D]`, its penalty by leave-one-out error."""
    from sklearn.linear_model import RidgeCV

    if len(x) < 2:  # nothing to leave out
        return y.mean(0).expand(len(new), -1)
    model = RidgeCV(_PENALTIES).fit(x.double().numpy(), y.double().numpy())
    predicted = torch.from_numpy(model.predict(new.double().numpy()))
    return predicted.view(len(new), -1).float()
