"""More tasks from few: variants of a task whose descriptions say what is different."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.seeding import generator as seeded
from hypergen.zoo.language.augment_kinds import KINDS, Change, closed_set
from hypergen.zoo.language.tasks import Instance, TextTask

__all__ = ["KINDS", "augment", "closed_set", "variant"]

_ROUNDS = 4  # further draws of the kinds that have several variants of one task


def augment(
    tasks: Sequence[TextTask],
    *,
    per_task: int = 4,
    kinds: Sequence[str] | None = None,
    seed: int = 0,
) -> list[TextTask]:
    r"""Makes variants of tasks, each a task of its own.

    Every description of a variant is one of the task's, with a sentence that says what changed, so
    that a generator has to read it; outputs, accepted outputs, labels and examples change with it.

    | kind | outputs | tasks |
    |---|---|---|
    | `subset` | some labels alone; instances of the others go | closed, 3–20 labels |
    | `listed` | unchanged; the labels are listed in a new order | closed, 2–20 labels |
    | `numbered` | a label's number in a shuffled list | closed, 2–20 labels |
    | `renamed` | letters, numbers, colours or made-up words for labels | closed, 2–20 labels |
    | `swapped` | labels in each other's place | closed, 2–6 labels |
    | `upper` | in capital letters | all |
    | `quotes` | in double quotes | all |
    | `prefix` | `Answer: …` | all |
    | `json` | `{"answer": "…"}` | all |
    | `repeat` | twice | all |
    | `reverse_words` | words in reverse order | outputs of several words |
    | `first_letter`, `last_letter` | one character of the output | outputs that have one there |
    | `length` | number of letters | outputs of one word |

    A task is closed if its file lists labels, or its outputs are few (`inferred_labels`). A variant
    that changes nothing, has a single answer, leaves a split of the instances empty, makes two
    labels one (except for further steps, from `repeat` on) or is there already is not made.

    Variants inherit the family: those of a held-out family are held out. They follow from the seed
    and the task's content alone, not from its name or from other tasks, except that of two
    identical variants the first is kept.

    Args:
        tasks: The tasks.
        per_task: Most variants of each.
        kinds: Which kinds; all when not given.
        seed: Seed of the draws.

    Returns:
        The variants, without the tasks, named `TASK+KIND`; `metadata` has `variant_of` and
        `variant`.

    Raises:
        UsageError: An unknown kind, or a negative number.
    """
    if per_task < 0:
        raise UsageError(f"per_task is {per_task}: it must be 0 or more")
    chosen = list(KINDS) if kinds is None else list(dict.fromkeys(kinds))
    for kind in chosen:
        if kind not in KINDS:
            raise UsageError(f"there is no kind {kind!r} of variant.{did_you_mean(kind, KINDS)}")
    seen = {_content(task) for task in tasks}
    made: list[TextTask] = []
    for task in tasks:
        order = torch.randperm(len(chosen), generator=seeded("variants", seed, task.hash))
        names = [chosen[i] for i in order.tolist()]
        count = 0
        for number, kind in ((n, k) for n in range(_ROUNDS) for k in names):
            if count == per_task:
                break
            new = variant(task, kind, seed, number)
            if new is None or _content(new) in seen:
                continue
            seen.add(_content(new))
            made.append(new)
            count += 1
    return made


def variant(task: TextTask, kind: str, seed: int = 0, number: int = 0) -> TextTask | None:
    """Makes one variant of a task.

    Args:
        task: The task.
        kind: One of `KINDS`.
        seed: Seed of the draw.
        number: Which draw; kinds without a choice make the same variant each time.

    Returns:
        The variant, or None if the kind does not fit the task.
    """
    random = seeded("variant", seed, task.hash, kind, number)
    change = KINDS[kind](task, random)
    if change is None:
        return None
    instances = {
        split: tuple(new for row in rows if (new := _changed(row, change)) is not None)
        for split, rows in task.instances.items()
    }
    if not all(instances.values()):
        return None
    labels = change.labels
    if labels is None:
        mapped = [change.answer(label) for label in task.labels]
        labels = tuple(dict.fromkeys(label for label in mapped if label is not None))
        if len(labels) < len(task.labels) and not change.merges:
            return None
    outputs = {row.outputs[0] for rows in instances.values() for row in rows}
    if len(outputs) < 2 or (instances == dict(task.instances) and change.labels is None):
        return None
    first = int(torch.randint(len(change.said), (), generator=random))
    return TextTask(
        name=f"{task.name}+{kind}{number + 1 if number else ''}",
        family=task.family,
        descriptions=tuple(
            # `replace`, not `format` with the text: descriptions may have braces of their own.
            change.said[(first + i) % len(change.said)].replace("{task}", text)
            for i, text in enumerate(task.descriptions)
        ),
        instances=instances,
        examples=_examples(task, change, instances.get("train", ())),
        labels=labels,
        metadata={**task.metadata, "variant_of": task.name, "variant": kind},
    )


def _changed(row: Instance, change: Change) -> Instance | None:
    """The instance with its new outputs; None where the first one is left out."""
    outputs = [change.answer(output) for output in row.outputs]
    if outputs[0] is None:
        return None
    kept = dict.fromkeys(output for output in outputs if output is not None)
    return Instance(row.input, tuple(kept))


def _examples(
    task: TextTask, change: Change, instances: Sequence[Instance]
) -> tuple[Instance, ...]:
    """As many demonstrations as the task has; instances for those that went with their label."""
    kept = [new for row in task.examples if (new := _changed(row, change)) is not None]
    return (*kept, *instances[: len(task.examples) - len(kept)])


def _content(task: TextTask) -> Hashable:
    """What two tasks that are the same have in common, however they are described."""
    return tuple(sorted(task.instances.items())), task.labels
