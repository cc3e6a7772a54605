"""Train, validation and test parts that share no task and no run."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping
from typing import Literal, get_args

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.seeding import stable_seed
from hypergen.zoo.store import Row, Zoo

SplitBy = Literal["task", "family", "run"]
FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def split(
    zoo: Zoo,
    by: SplitBy = "task",
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    heldout: Collection[str] | None = None,
) -> dict[str, Zoo]:
    """Cuts a zoo into views that share no task (or family, or run), never by checkpoint.

    Checkpoints that belong together are one group and stay on one side: those of one run, of a run
    and the run that it started from (`Row.parent`), and, unless `by="run"`, of one task and of the
    tasks of one family. Fractions count groups, not checkpoints; every split has at least one.

    Splits of single checkpoints are not offered. Neighbours of a trajectory are nearly equal, so a
    model that copies what it saw looks as if it generalised; that is how copying went unnoticed in
    published generators (Zeng et al., "Generative Modeling of Weights: Generalization or
    Memorization?", 2025, arXiv:2506.07998).

    Args:
        zoo: Any view; the parts keep its order.
        by: What is new in the other parts: `"task"`, `"family"` or `"run"`.
        fractions: Name of a split → its share of the groups; 80% train, 10% val, 10% test when
            not given.
        seed: Another seed, other splits.
        heldout: Names of tasks, families or runs (as `by` says). The last split then consists of
            their groups exactly, and the other splits share the rest.

    Returns:
        Name of a split → view of the zoo.

    Raises:
        UsageError: An unknown `by` or name, fractions that are not positive or do not sum to 1,
            no checkpoint has a task, or there are fewer groups than splits.
    """
    fractions = dict(FRACTIONS if fractions is None else fractions)
    _check(by, fractions)
    groups = groups_of(zoo, by)
    names = {
        group: min(_unit(zoo, zoo.rows[i], by) for i in rows) for group, rows in groups.items()
    }
    assigned: dict[str, list[int]] = {name: [] for name in fractions}
    if heldout is not None:
        last = next(reversed(fractions))
        del fractions[last]
        for group in _named(zoo, by, groups, heldout):
            assigned[last] += groups.pop(group)
    if len(groups) < len(fractions):
        raise UsageError(
            f"{len(groups)} independent groups of checkpoints cannot be cut into {len(fractions)} "
            f"splits by {by} ({', '.join(fractions)}): checkpoints that share a run"
            + ("" if by == "run" else f" or a {by}")
            + " stay together. Ask for fewer splits"
            + (", or split by run" if by != "run" else ", or add independent runs")
        )
    # By a hash of its name, so that the order of the checkpoints does not matter.
    order = sorted(groups, key=lambda group: stable_seed("split", seed, *names[group]))
    start = 0
    for name, count in zip(fractions, _counts(fractions, len(order)), strict=True):
        for group in order[start : start + count]:
            assigned[name] += groups[group]
        start += count
    return {name: zoo[sorted(rows)] for name, rows in assigned.items()}


def groups_of(zoo: Zoo, by: SplitBy = "task") -> dict[int, list[int]]:
    """Positions of the checkpoints by group of what must not be separated; see `split`.

    Returns:
        Number of a group, in order of first appearance → positions in the zoo.
    """
    if by != "run" and not any(row.task for row in zoo.rows):
        raise UsageError(f"no checkpoint of this zoo names a task: split by 'run', not by {by!r}")
    links = _UnionFind()
    runs = {row.run for row in zoo.rows}
    for row in zoo.rows:
        node = ("run", row.run)
        links.find(node)
        if row.parent in runs:
            links.union(node, ("run", row.parent))
        if by != "run" and row.task:
            links.union(node, ("task", row.task))
            task = zoo.tasks.get(row.task)
            if task is not None and task.family:
                links.union(node, ("family", task.family))
    roots: dict[Hashable, int] = {}
    groups: dict[int, list[int]] = {}
    for i, row in enumerate(zoo.rows):
        root = links.find(("run", row.run))
        groups.setdefault(roots.setdefault(root, len(roots)), []).append(i)
    return groups


class _UnionFind:
    """Sets that merge; Tarjan, "Efficiency of a Good But Not Linear Set Union Algorithm", 1975."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def find(self, node: Hashable) -> Hashable:
        parent = self._parent.setdefault(node, node)
        while parent != node:
            # Halves the path, so that the next search is shorter.
            self._parent[node] = node = self._parent[parent]
            parent = self._parent[node]
        return node

    def union(self, a: Hashable, b: Hashable) -> None:
        self._parent[self.find(a)] = self.find(b)


def _unit(zoo: Zoo, row: Row, by: SplitBy) -> tuple[str, str]:
    """(kind, name) of what a row is split by: its run where it has no task."""
    if by == "run" or not row.task:
        return "run", row.run
    if by == "task":
        return "task", row.task
    task = zoo.tasks.get(row.task)
    return "family", (task.family if task is not None else "") or row.task


def _named(
    zoo: Zoo, by: SplitBy, groups: Mapping[int, list[int]], names: Collection[str]
) -> list[int]:
    """The groups that hold something called so."""
    if isinstance(names, str):
        names = [names]
    holders: dict[str, set[int]] = {}
    for group, rows in groups.items():
        for i in rows:
            kind, name = _unit(zoo, zoo.rows[i], by)
            if kind == by:
                holders.setdefault(name, set()).add(group)
    for name in names:
        if name not in holders:
            raise UsageError(f"no checkpoint has the {by} {name!r}.{did_you_mean(name, holders)}")
    return sorted(set().union(*(holders[name] for name in names)))


def _counts(fractions: Mapping[str, float], total: int) -> list[int]:
    """Whole numbers near the fractions of a total: one for each, the rest by largest remainder."""
    scale = total / math.fsum(fractions.values())
    ideal = [scale * fraction for fraction in fractions.values()]
    counts = [max(1, math.floor(value)) for value in ideal]
    while sum(counts) != total:
        step = 1 if sum(counts) < total else -1
        able = [i for i, count in enumerate(counts) if count + step >= 1]
        counts[max(able, key=lambda i: step * (ideal[i] - counts[i]))] += step
    return counts


def _check(by: str, fractions: Mapping[str, float]) -> None:
    if by == "checkpoint":
        raise UsageError(
            "splits by checkpoint are not offered: checkpoints of one run are nearly equal, so "
            "that copying the training set looks like generalising (Zeng et al. 2025, "
            "arXiv:2506.07998). Split by 'task', 'family' or 'run'"
        )
    if by not in get_args(SplitBy):
        raise UsageError(
            f"zoos are split by task, family or run.{did_you_mean(by, get_args(SplitBy))}"
        )
    if not fractions or any(not fraction > 0 for fraction in fractions.values()):
        raise UsageError("every split needs a fraction above 0")
    if abs(math.fsum(fractions.values()) - 1) > 1e-6:
        raise UsageError(f"the fractions sum to {math.fsum(fractions.values()):g}, not to 1")
