"""Samples of a generator for an audit: of held-out conditions, of wrong ones, of none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.progress import progress
from hypergen.conditions import Condition
from hypergen.evaluation.audit.records import Networks
from hypergen.generators import Generator
from hypergen.generators.diffusion.conditioning import dropped
from hypergen.zoo import Zoo
from hypergen.zoo.reading.filters import metric_values
from hypergen.zoo.reading.record import ZooRecord

_ROWS = 64  # conditions that are sampled at a time
WHICH = ("heldout", "train")


@dataclass(frozen=True)
class Drawn:
    """What was sampled.

    Attributes:
        flat: `[S, numel]`.
        groups: `[S]`, number of the condition of each; all different without conditions.
        tasks: Name of the task of each; empty without conditions.
        similarity: `[S, T]`, cosine of the conditions with those of the training networks, less
            their mean; None without conditions.
        controls: `"shuffled"` (another task's condition) and, of generators that learned a
            condition that says nothing, `"dropped"` → `[S, numel]`.
    """

    flat: Tensor
    groups: Tensor
    tasks: list[str] = field(default_factory=list)
    similarity: Tensor | None = None
    controls: dict[str, Tensor] = field(default_factory=dict)

    @property
    def conditional(self) -> bool:
        """Whether each sample is for a task."""
        return bool(self.tasks)

    def networks(self, numbers: Tensor | None) -> Networks:
        """The samples, with the numbers of their tasks."""
        return Networks.of(self.flat, self.groups, numbers)


def draw(
    generator: Generator,
    record: ZooRecord,
    count: int,
    *,
    seed: int = 0,
    condition: str = "heldout",
) -> Drawn:
    """Samples a generator that was trained on a zoo.

    Args:
        generator: The generator.
        record: Its zoo and splits.
        count: Samples; fewer of deterministic generators, which have one for each condition.
        seed: Seed of the first sample of each condition.
        condition: `"heldout"` for the tasks of validation and test, `"train"` for those of
            training, or the name of a task; without effect on generators without conditions.

    Raises:
        UsageError: No such task, or a kind of condition that cannot be sampled.
    """
    if record.kind == "none":
        flat = generator.generate(n=count, seed=seed).flat().float().cpu()
        return Drawn(flat, torch.arange(len(flat)))
    if record.kind == "pairs":
        return _improved(generator, record, count, seed)
    if record.kind not in ("text", "vector"):
        raise UsageError(
            f"conditions of the kind {record.kind!r} are not sampled here: generate networks, and "
            "audit them with --weights FILE --zoo DIR"
        )
    return _of_tasks(generator, record, count, seed, condition)


def _of_tasks(
    generator: Generator, record: ZooRecord, count: int, seed: int, condition: str
) -> Drawn:
    train = record.splits["train"]
    wordings = _wordings(record)
    chosen = _tasks(record, condition)
    asked = [(task, text) for task in chosen for text in wordings[task]]
    # One wording of each task first, so that few samples still cover many tasks.
    place: dict[str, int] = {}
    order = sorted(range(len(asked)), key=lambda i: _turn(place, asked[i][0]))
    asked = [asked[i] for i in order][:count]
    encode = _encoder(generator, record.kind)
    probe = encode([asked[0][1]])
    a, b = (generator.generate(condition=probe, seed=s).flat() for s in (seed, seed + 1))
    n = 1 if torch.equal(a, b) else -(-count // len(asked))
    seen = sorted({row.task for row in train.rows})
    pooled = {
        "samples": _pooled(encode, [text for _, text in asked]),
        "training": _pooled(encode, [wordings[task][0] for task in seen]),
    }
    number = {task: i for i, task in enumerate(seen)}
    own = torch.tensor([number[row.task] for row in train.rows])
    centre = pooled["training"].mean(0)
    likeness = (
        F.normalize(pooled["samples"] - centre, dim=1)
        @ F.normalize(pooled["training"] - centre, dim=1).T
    )
    keep = torch.arange(len(asked)).repeat_interleave(n)[:count]
    names = sorted(set(chosen))
    tasks = [asked[i][0] for i in keep.tolist()]
    texts = [text for _, text in asked]
    flat = _sample(generator, encode, texts, n, seed)[:count]
    controls = {}
    if len({task for task, _ in asked}) > 1:
        # The condition of a task half the list away: of another task for all.
        other = [texts[i] for i in _others([task for task, _ in asked])]
        controls["shuffled"] = _sample(generator, encode, other, n, seed)[:count]
    null = getattr(generator, "null", None)
    if isinstance(null, Tensor) and getattr(generator, "condition_dropout", 0) > 0:

        def nothing(rows: Sequence[Any]) -> Condition:
            given = encode(rows)
            every = torch.ones(len(given), dtype=torch.bool, device=given.pooled.device)
            return dropped(given, every, null.detach())

        controls["dropped"] = _sample(generator, nothing, texts, n, seed)[:count]
    groups = torch.tensor([names.index(task) for task in tasks])
    return Drawn(flat, groups, tasks, likeness[keep][:, own], controls)


def _turn(place: dict[str, int], task: str) -> int:
    """How many wordings of the task came before."""
    place[task] = place.get(task, -1) + 1
    return place[task]


def _others(tasks: Sequence[str]) -> list[int]:
    """For each position another one, whose task differs."""
    count = len(tasks)
    out = []
    for i, task in enumerate(tasks):
        step = next(
            s for s in range(count // 2, count + count // 2) if tasks[(i + s) % count] != task
        )
        out.append((i + step) % count)
    return out


def _wordings(record: ZooRecord) -> dict[str, list[Any]]:
    """Task → its conditions as the generator takes them."""
    if record.kind == "vector":
        return {task: [vector] for task, vector in record.settings["conditions"].items()}
    tasks = record.splits["train"].tasks
    return {name: list(task.descriptions) for name, task in tasks.items() if task.descriptions}


def _tasks(record: ZooRecord, condition: str) -> list[str]:
    """The tasks that are asked for, in order."""
    views = {"heldout": ("val", "test"), "train": ("train",)}
    if condition in views:
        return sorted({row.task for v in views[condition] for row in record.splits[v].rows})
    known = sorted({row.task for view in record.splits.values() for row in view.rows})
    if condition not in known:
        raise UsageError(
            f"there is no condition {condition!r}: give 'heldout', 'train' or the name of a task."
            + did_you_mean(condition, [*WHICH, *known[:20]])
        )
    return [condition]


def _encoder(generator: Generator, kind: str) -> Callable[[Sequence[Any]], Condition]:
    def encode(rows: Sequence[Any]) -> Condition:
        return generator.encode(**{kind: list(rows)})

    return encode


@torch.no_grad()
def _pooled(encode: Callable[[Sequence[Any]], Condition], rows: Sequence[Any]) -> Tensor:
    parts = [encode(rows[i : i + _ROWS]).pooled for i in range(0, len(rows), _ROWS)]
    return torch.cat(parts).float().cpu()


def _sample(
    generator: Generator,
    encode: Callable[[Sequence[Any]], Condition],
    rows: Sequence[Any],
    n: int,
    seed: int,
) -> Tensor:
    """`[len(rows) · n, numel]`, n samples for each condition after one another."""
    out = []
    for i in progress(range(0, len(rows), _ROWS), desc="sampling", unit=" batches"):
        condition = encode(rows[i : i + _ROWS])
        out.append(generator.generate(condition=condition, n=n, seed=seed).flat().float().cpu())
    return torch.cat(out)


def _improved(generator: Generator, record: ZooRecord, count: int, seed: int) -> Drawn:
    """First checkpoints of validation runs, changed to the best metric that training has."""
    metric = str(record.settings["metric"])
    starts = first_checkpoints(record.splits["val"])
    values = torch.from_numpy(metric_values(starts, metric)).float()
    train = torch.from_numpy(metric_values(record.splits["train"], metric)).float()
    train = train[torch.isfinite(train)]
    best = train.min() if metric.endswith("loss") else train.max()
    times = -(-count // len(starts))
    flat = starts.flat().float()
    wanted = torch.stack([values, best.expand(len(values))], dim=1)
    given: Mapping[str, Any] = {"weights": flat, "metric": wanted.tolist()}
    made = generator.generate(**given, n=times, seed=seed).flat().float().cpu()
    groups = torch.arange(len(starts)).repeat_interleave(times)
    return Drawn(made[:count], groups[:count])


def first_checkpoints(zoo: Zoo) -> Zoo:
    """The first checkpoint of each run."""
    first: dict[str, int] = {}
    for i, row in enumerate(zoo.rows):
        if row.run not in first or row.step < zoo.rows[first[row.run]].step:
            first[row.run] = i
    return zoo[sorted(first.values())]
