"""Which tasks and which wordings a text suite trains on, validates on and holds out."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypergen._utils.errors import RunError, UsageError, did_you_mean
from hypergen._utils.seeding import stable_seed
from hypergen.zoo.language.augment import augment
from hypergen.zoo.language.tasks import TextTask, read_tasks


def choose_families(
    families: Sequence[str],
    heldout: float | Sequence[str],
    val: float | Sequence[str],
    seed: int = 0,
) -> tuple[list[str], list[str]]:
    """Draws families to hold out and to validate on; lists are taken as they are.

    Families are taken in a random order, each if the share of the tasks has room for it: a large
    family does not take the place of many.

    Args:
        families: The family of each task.
        heldout: Families to hold out, or the share of the tasks that they have; at least one
            family, unless it is 0.
        val: Those to validate on, likewise.
        seed: Seed of the draw.

    Returns:
        Held-out families and validation families, sorted.

    Raises:
        UsageError: A share out of range, an unknown family, one in both lists, or none left to
            train on.
    """
    sizes = Counter(families)
    options = {"heldout_families": heldout, "val_families": val}
    lists = {k: list(v) for k, v in options.items() if not isinstance(v, (int, float))}
    for option, listed in lists.items():
        for name in listed:
            if name not in sizes:
                hint = did_you_mean(name, sizes)
                raise UsageError(f"{option}: there is no family {name!r}.{hint}")
    free = [name for name in sorted(sizes) if not any(name in names for names in lists.values())]
    free.sort(key=lambda name: stable_seed("family", seed, name))
    taken: list[list[str]] = []
    for option, wanted in options.items():
        chosen = lists.get(option, [])
        if isinstance(wanted, (int, float)):
            if not 0 <= wanted < 1:
                raise UsageError(f"{option}={wanted} is a share: it must be at least 0 and below 1")
            room = round(wanted * len(families))
            for name in free if wanted else ():
                if sizes[name] <= room:
                    chosen.append(name)
                    room -= sizes[name]
            if wanted and free and not chosen:
                chosen = [min(free, key=lambda name: sizes[name])]
            free = [name for name in free if name not in chosen]
        taken.append(sorted(chosen))
    both = set(taken[0]) & set(taken[1])
    if both:
        raise UsageError(f"the family {min(both)!r} is both held out and validated on")
    if not set(sizes) - set(taken[0]) - set(taken[1]):
        raise UsageError(
            f"of {len(sizes)} families none is left to train on: hold out and validate on fewer"
        )
    return taken[0], taken[1]


def read_usable(folder: Path, families: Sequence[str] | None = None) -> list[TextTask]:
    """Reads the tasks that can be trained and tested on; warns of each that is left out.

    Raises:
        UsageError: There is none.
    """
    tasks, errors = read_tasks(folder, families=families)
    for error in errors:
        warnings.warn(f"task left out: {error}", stacklevel=2)
    usable = [task for task in tasks if {"train", "test"} <= set(task.instances)]
    for task in tasks:
        if task not in usable:
            warnings.warn(
                f"task left out: {task.name!r} needs instances both to train and to test on",
                stacklevel=2,
            )
    if not usable:
        raise UsageError(f"no task in {folder} has instances both to train and to test on")
    return usable


def limited(
    tasks: Sequence[TextTask], reserved: set[str], limit: int | None, seed: int = 0
) -> list[TextTask]:
    """Leaves out training tasks beyond a number; those of a smaller limit are among the rest.

    Args:
        tasks: All tasks.
        reserved: Families that are not trained on, whose tasks all stay.
        limit: Most training tasks; all when not given.
        seed: Seed of the draw.

    Returns:
        The tasks that stay, in their order.
    """
    if limit is None:
        return list(tasks)
    trained = [task.name for task in tasks if task.family not in reserved]
    trained.sort(key=lambda name: stable_seed("limit", seed, name))
    kept = set(trained[:limit])
    return [task for task in tasks if task.family in reserved or task.name in kept]


def read_recorded(
    folder: str | Path, hashes: Mapping[str, str] | None
) -> tuple[list[TextTask], tuple[Exception, ...]]:
    """The tasks of a folder; if their hashes are given, these and unchanged."""
    place = os.path.expandvars(folder)
    if "$" in place:
        raise UsageError(f"{folder}: set the environment variable, or give another folder")
    if hashes is None:
        tasks, errors = read_tasks(place)
        return tasks, tuple(errors)
    try:
        tasks, _ = read_tasks(place, strict=True, names=list(hashes))
    except UsageError as error:
        raise RunError(f"the tasks of this run are not in {place}: {error}") from error
    for task in tasks:
        if task.hash != hashes[task.name]:
            raise RunError(
                f"the task {task.name!r} in {place} has changed since the run was trained: put the "
                "file back, or train again"
            )
    return tasks, ()


def make_variants(
    tasks: Sequence[TextTask], splits: Sequence[str], options: Mapping[str, Any] | None
) -> dict[str, list[TextTask]]:
    """Split → variants of tasks that follow theirs: nothing leaves its side."""
    if options is None:
        return {}
    options = dict(options)
    heldout = options.pop("heldout", 0)

    def of(split: str, **changes: Any) -> list[TextTask]:
        chosen = [task for task, s in zip(tasks, splits, strict=True) if s == split]
        try:
            return augment(chosen, **{**options, **changes})
        except TypeError as error:
            raise UsageError(f"augment: {error}") from error

    out = {"augmented": of("train")}
    if heldout:
        out["heldout_variants"] = of("heldout_tasks", per_task=heldout)
    return out


def split_wordings(
    tasks: Sequence[TextTask], wanted: Mapping[str, int]
) -> dict[str, list[list[str]]]:
    """Descriptions by split: training takes the first ones, at least half of them."""
    out: dict[str, list[list[str]]] = {"train": [], **{k: [] for k, n in wanted.items() if n}}
    out.setdefault("heldout", [])
    for task in tasks:
        texts = list(task.descriptions)
        free = len(texts) // 2
        for split in reversed(list(wanted)):  # the last ones are held out first
            count = min(wanted[split], free)
            free -= count
            if split in out:
                out[split].append(texts[len(texts) - count :])
            texts = texts[: len(texts) - count]
        out["train"].append(texts)
    return out
