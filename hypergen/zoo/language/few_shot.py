"""Demonstrations of text tasks: which instances may serve, and suites that show or learn a few."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch

from hypergen._utils.seeding import generator as seeded
from hypergen.zoo.language.causal import CausalSuite
from hypergen.zoo.language.tasks import Instance, TextTask


def demo_rows(task: TextTask, seed: int = 0, most: int | None = None) -> list[int]:
    """Training instances that may serve as demonstrations, in a random order.

    Left out are inputs that occur more than once, or in another split: what is shown must not be
    what is asked. The order follows from the seed and the task's content alone.

    Args:
        task: The task.
        seed: Seed of the order.
        most: Most of them; all when not given.

    Returns:
        Their numbers among the training instances.
    """
    rows = task.instances.get("train", ())
    times = Counter(row.input for row in rows)
    others = {row.input for split, own in task.instances.items() if split != "train" for row in own}
    fit = [
        i
        for i, row in enumerate(rows)
        if times[row.input] == 1 and row.input not in others and _says_something(row)
    ]
    order = torch.randperm(len(fit), generator=seeded("demonstrations", seed, task.hash)).tolist()
    return [fit[i] for i in order[:most]]


def demonstrations(task: TextTask, count: int, seed: int = 0) -> tuple[Instance, ...]:
    """Draws demonstrations of a task; those of a smaller number are among those of a larger.

    They are training instances (see `demo_rows`) and, where these do not suffice, the positive
    examples of the task's definition whose inputs are not scored either.

    Args:
        task: The task.
        count: How many; a task that has fewer gives all of them.
        seed: Seed of the draw.
    """
    rows = task.instances.get("train", ())
    chosen = [rows[i] for i in demo_rows(task, seed, count)]
    asked = {row.input for split, own in task.instances.items() if split != "train" for row in own}
    asked |= {row.input for row in chosen}
    for example in task.examples:
        if len(chosen) < count and example.input not in asked and _says_something(example):
            chosen.append(example)
            asked.add(example.input)
    return tuple(chosen)


def few_shot(
    suite: CausalSuite, asked: Sequence[tuple[int, int]], seed: int, k: int
) -> CausalSuite:
    """A suite in which k demonstrations are all that is known of each task.

    Args:
        suite: Where the tasks are.
        asked: For each task of the new suite, the number of one here and of its description. A task
            that stands there several times gets other demonstrations each time.
        seed: Seed of the demonstrations.
        k: How many; fewer where a task has fewer.

    Returns:
        A suite of `len(asked)` tasks with one description each: the demonstrations are its
        `examples`, which `CausalSuite.in_context` shows, and its training instances. Other splits
        are as they were. It shares the model and the tokens with `suite`, and drops no description
        from its prompts.
    """
    times: Counter[int] = Counter()
    tasks = []
    for number, wording in asked:
        task = suite.tasks[number]
        demos = demonstrations(task, k, seed + times[number])
        times[number] += 1
        instances = {split: rows for split, rows in task.instances.items() if split != "train"}
        if demos:
            instances["train"] = demos
        new = replace(
            task,
            descriptions=(task.descriptions[wording],),
            examples=demos,
            instances=instances,
        )
        # What can be answered is known from the whole task, not from what is left of it.
        new.__dict__["inferred_labels"] = task.inferred_labels
        new.__dict__["picks_from_list"] = task.picks_from_list
        tasks.append(new)
    made = copy.copy(suite)
    made.tasks = tuple(tasks)
    made.names = tuple(task.name for task in tasks)
    made.task_splits = {"few_shot": list(range(len(tasks)))}
    made.descriptions = {"train": [list(task.descriptions) for task in tasks]}
    made.prompt_dropout, made.teacher = 0.0, None
    made._counts, made._heads, made._tables = {}, None, {}
    return made


def _says_something(row: Instance) -> bool:
    return bool(row.input.strip() and row.outputs[0].strip())
