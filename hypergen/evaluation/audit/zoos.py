"""Zoos as an audit reads them: networks of a split, and the judge that scores them."""

from __future__ import annotations

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen.evaluation.audit.records import Behaviour, Judge, Networks
from hypergen.evaluation.networks import (
    BatchNormStatistics,
    answers_of,
    best_tasks,
    evaluate_networks,
    problem_of,
    task_numbers,
)
from hypergen.zoo import Zoo
from hypergen.zoo.ensemble import Problem


def networks_of(zoo: Zoo, problem: Problem | None, first: int = 0) -> Networks:
    """All checkpoints of a view.

    Args:
        zoo: A view of one architecture.
        problem: Numbers the tasks; they are all 0 without it.
        first: Number of the first run, so that those of two views differ.
    """
    names = [row.task for row in zoo.rows]
    tasks = None
    if problem is not None:
        tasks = task_numbers(zoo, problem, names)
    runs: dict[str, int] = {}
    groups = torch.tensor([first + runs.setdefault(row.run, len(runs)) for row in zoo.rows])
    return Networks.of(zoo.flat().float(), groups.long(), tasks)


def find_problem(zoo: Zoo) -> Problem | None:
    """The problem whose data networks can be scored on; None where the zoo records none."""
    try:
        return problem_of(zoo)
    except UsageError:
        return None


def judge_of(
    zoo: Zoo,
    problem: Problem,
    *,
    limit: int | None = None,
    batch_norm: BatchNormStatistics = "train",
) -> Judge:
    """Scores networks on the test samples of a zoo's problem.

    Batch-norm statistics of generated networks (and of baselines, which are made like them) are
    re-estimated on training samples; stored networks keep their own.

    Args:
        zoo: The zoo.
        problem: Its problem.
        limit: Most test samples.
        batch_norm: `"stored"` to leave generated statistics as they are.
    """
    split = "test" if "test" in problem.splits else problem.splits[-1]
    answers = answers_of(problem, split, limit)
    one = len(problem.tasks) == 1

    def score(flat: Tensor, tasks: Tensor | None, generated: bool) -> Behaviour:
        asked = torch.zeros(len(flat), dtype=torch.long) if tasks is None else tasks
        found = evaluate_networks(
            zoo,
            flat,
            split,
            asked,
            batch_norm=batch_norm if generated else "stored",
            limit=limit,
            problem=problem,
        )
        if tasks is not None or one or found.predictions is None or answers is None:
            return Behaviour(found.quality, found.predictions, asked)
        best = best_tasks(found.predictions, answers)
        right = (found.predictions == answers[best]).float().mean(1)
        return Behaviour(right, found.predictions, best)

    sample = evaluate_networks(
        zoo, zoo.flat([0]), split, torch.zeros(1).long(), problem=problem, limit=1
    )
    name = next(n for n in ("accuracy", "psnr", "loss") if n in sample.metrics)
    return Judge(score, answers, name)
