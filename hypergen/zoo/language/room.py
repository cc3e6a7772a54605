"""Room in a sequence for tasks that a model was not trained on, and in memory for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from hypergen.zoo.language.causal import CausalSuite

INPUT_ROOM = 128  # tokens of an input that a long description must leave room for
# Tokens of a training step, about: their activations are what a step needs memory for, nearly a
# megabyte each for a model of 135 million weights.
STEP_TOKENS = 8192


def make_room(suite: CausalSuite, tasks: Sequence[int]) -> list[int]:
    """Raises `max_length` where the descriptions of some tasks leave too little room for inputs.

    The definitions of the real repository have several hundred words.

    Args:
        suite: The tasks.
        tasks: Task numbers.

    Returns:
        The tasks that fit: the others leave no room for an input within what the model takes.
    """
    heads, first = suite.heads()
    most, needed, kept = suite.language_model.max_length, 0, []
    for task in tasks:
        head = heads.lengths[int(first[task]) : int(first[task]) + suite.heads_of(task)]
        body = answer = 0
        for split in suite.tasks[task].instances:
            bodies, answers, start = suite.table(split)
            part = slice(int(start[task]), int(start[task] + suite.counts(split)[task]))
            body = max(body, int(bodies.lengths[part].max()))
            answer = max(answer, int(answers.lengths[part].max()))
        fixed = int(head.max()) + int(suite.tail.lengths[0]) + answer
        if fixed + 1 <= most:
            kept.append(task)
            needed = max(needed, fixed + min(body, INPUT_ROOM))
    suite.max_length = max(suite.max_length, min(needed, most))
    return kept


def stacks(lengths: Tensor, tasks: Tensor, most: int) -> tuple[Tensor, list[int]]:
    """Tasks in the order of their lengths, in stacks of at most `STEP_TOKENS` padded tokens.

    Args:
        lengths: `[n]`, tokens of a step of each task.
        tasks: `[n]` task numbers.
        most: Most tasks of a stack.

    Returns:
        The tasks in order, and the sizes of the stacks.
    """
    order = lengths.argsort(stable=True)
    sizes: list[int] = []
    for length in lengths[order].tolist():
        # They come in rising order: the new one is the longest of its stack.
        if sizes and sizes[-1] < most and (sizes[-1] + 1) * length <= STEP_TOKENS:
            sizes[-1] += 1
        else:
            sizes.append(1)
    return tasks[order], sizes
