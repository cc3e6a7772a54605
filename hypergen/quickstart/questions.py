"""The tasks of the quickstart: yes/no questions about a digit, in many wordings, honestly split.

A task is a function from the ten digits to yes or no, and the sentences that describe it. Three
families: *subset* tasks name their digits ("is 3, 5 or 7"), *property* tasks name a fact ("is
prime"), *composed* tasks combine training properties and digits ("is prime but is not 3").

Splits are made by function, not by sentence. A function and its complement always share a split,
properties with the same function or the same vocabulary (`Concept.kin`) do too, and no training
task of any family has a function of a validation or held-out task. Wordings are split by whole
templates (`wordings.split_templates`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hypergen.quickstart.concept import Concept
from hypergen.quickstart.properties import all_concepts
from hypergen.quickstart.sentences import (
    Answers,
    SentenceWriter,
    complement,
    compose,
    function_key,
    property_phrases,
)
from hypergen.quickstart.wordings import list_phrases, split_templates

TASK_SPLITS: tuple[str, ...] = (
    "train",
    "val",
    "heldout_tasks",
    "val_properties",
    "heldout_properties",
)


@dataclass(frozen=True)
class Task:
    """A yes/no question about a digit.

    Attributes:
        name: unique and stable, such as "subset:0-3-5" or "property:not-prime".
        family: "subset", "property" or "composed".
        theme: the area of the property, or the family.
        split: one of `TASK_SPLITS`.
        answers: ten answers, one a digit.
        descriptions: sentences by wording split: "train", "val", "heldout" (a reserved template)
            and "paraphrase" (a seen template with a reserved phrase for the property).
    """

    name: str
    family: str
    theme: str
    split: str
    answers: Answers
    descriptions: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class TaskTable:
    """All tasks of one seed.

    Attributes:
        tasks: the tasks, in a fixed order.
        templates: the wording split of every frame and list style.
        seed: the seed that made the table.
    """

    tasks: tuple[Task, ...]
    templates: Mapping[str, str]
    seed: int
    _index: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def indices(self, split: str) -> tuple[int, ...]:
        """Returns the positions of the tasks of one split.

        Raises:
            KeyError: if the split is unknown.
        """
        if split not in TASK_SPLITS:
            raise KeyError(f"unknown task split {split!r}; known: {', '.join(TASK_SPLITS)}")
        if split not in self._index:
            self._index[split] = tuple(i for i, t in enumerate(self.tasks) if t.split == split)
        return self._index[split]

    def answers(self, indices: Sequence[int] | None = None) -> npt.NDArray[np.bool_]:
        """Returns the answers of some tasks (all by default), shape `[tasks, 10]`."""
        chosen = range(len(self.tasks)) if indices is None else indices
        return np.array([self.tasks[i].answers for i in chosen], dtype=bool).reshape(-1, 10)

    def sentences(self, split: str, wording: str) -> list[tuple[int, str]]:
        """Lists the descriptions of one task split in one wording split.

        Args:
            split: one of `TASK_SPLITS`.
            wording: "train", "val", "heldout" or "paraphrase".

        Returns:
            Pairs of task position and sentence.
        """
        return [
            (i, s) for i in self.indices(split) for s in self.tasks[i].descriptions.get(wording, ())
        ]


def concept_groups(concepts: Sequence[Concept]) -> list[list[Concept]]:
    """Groups concepts that must share a split: one function, its complement, or one kin.

    Returns:
        The groups, in the order of their first concept.
    """
    groups: list[tuple[set[object], list[Concept]]] = []
    for concept in concepts:
        keys: set[object] = {function_key(concept.answers)}
        keys |= {concept.kin} if concept.kin else set()
        members = [concept]
        rest = []
        for other_keys, others in groups:
            if keys & other_keys:
                keys |= other_keys
                members = others + members
            else:
                rest.append((other_keys, others))
        groups = [*rest, (keys, members)]
    position = {c.name: i for i, c in enumerate(concepts)}
    ordered = [sorted(members, key=lambda c: position[c.name]) for _, members in groups]
    return sorted(ordered, key=lambda members: position[members[0].name])


def build_tasks(
    seed: int = 0,
    n_subsets: int = 600,
    n_heldout: int = 120,
    n_val: int = 40,
    heldout_properties: float = 0.2,
    val_properties: float = 0.1,
    n_composed: int = 400,
    train_wordings: int = 8,
) -> TaskTable:
    """Builds the tasks of the quickstart, the same for one seed in every process.

    Args:
        seed: decides subsets, splits, templates held out and wordings.
        n_subsets: subset tasks in all, of sizes 1 to 9; at most 1022 exist.
        n_heldout: subset tasks in the split "heldout_tasks".
        n_val: subset tasks in the split "val".
        heldout_properties: fraction of the property groups in "heldout_properties".
        val_properties: fraction of the property groups in "val_properties".
        n_composed: training tasks composed of training properties.
        train_wordings: training sentences of a subset or property task; composed tasks have a
            quarter, tasks of the other splits half as many.

    Returns:
        The tasks with their sentences.

    Raises:
        ValueError: if the splits ask for more tasks than there are.
    """
    if not 0 < n_heldout + n_val < n_subsets <= 1022:
        raise ValueError(
            f"n_subsets={n_subsets} must exceed n_heldout + n_val = {n_heldout + n_val} and "
            "not exceed 1022, the number of subsets of ten digits that are not trivial"
        )
    templates = split_templates(seed)
    counts = {"train": train_wordings, "val": 1, "heldout": 2, "paraphrase": 2}
    few = {**counts, "train": (train_wordings + 1) // 2}  # no need of more where nothing is trained
    writers = {s: SentenceWriter(templates, counts if s == "train" else few) for s in TASK_SPLITS}

    # A property has its own vocabulary, which a few sentences do not teach apart from its frames.
    richer = SentenceWriter(templates, {**counts, "train": train_wordings * 5 // 2})

    concepts = all_concepts()
    groups = concept_groups(concepts)
    order = list(range(len(groups)))
    random.Random(f"properties:{seed}").shuffle(order)
    n_held = round(heldout_properties * len(groups))
    n_check = round(val_properties * len(groups))
    split_of: dict[str, str] = {}
    for rank, g in enumerate(order):
        split = "heldout_properties" if rank < n_held else "train"
        split = "val_properties" if n_held <= rank < n_held + n_check else split
        split_of |= {c.name: split for c in groups[g]}
    forbidden = {function_key(c.answers) for c in concepts if split_of[c.name] != "train"}
    trained = {function_key(c.answers) for c in concepts if split_of[c.name] == "train"}

    subsets, reserved = _split_subsets(seed, n_subsets, n_heldout, n_val, forbidden, trained)
    forbidden |= reserved

    tasks = []
    for answers, split in subsets:
        name = "subset:" + "-".join(str(d) for d in range(10) if answers[d])
        rng = random.Random(f"{name}:{seed}")
        yes = list_phrases(answers, templates, rng)
        no = list_phrases(complement(answers), templates, rng)
        tasks.append(
            Task(name, "subset", "subset", split, answers, writers[split].write(yes, no, rng))
        )
    for concept in concepts:
        for positive in (True, False):
            name = f"property:{'' if positive else 'not-'}{concept.name}"
            yes = property_phrases(concept, positive, seed)
            no = property_phrases(concept, not positive, seed)
            answers = concept.answers if positive else complement(concept.answers)
            split = split_of[concept.name]
            write = (richer if split == "train" else writers[split]).write
            sentences = write(yes, no, random.Random(f"{name}:{seed}"))
            tasks.append(Task(name, "property", concept.theme, split, answers, sentences))
    usable = [c for c in concepts if split_of[c.name] == "train"]
    composer = SentenceWriter(templates, {"train": max(1, train_wordings // 4)})
    rng = random.Random(f"composed:{seed}")
    names: set[str] = set()
    while len(names) < n_composed:
        made = compose(usable, forbidden, seed, rng)
        if made is not None and made[0] not in names:
            names.add(made[0])
            sentences = composer.write(made[2], [], rng)
            tasks.append(Task(made[0], "composed", "composed", "train", made[1], sentences))
    return TaskTable(tuple(tasks), templates, seed)


def _split_subsets(
    seed: int,
    n_subsets: int,
    n_heldout: int,
    n_val: int,
    forbidden: set[Answers],
    trained: set[Answers],
) -> tuple[list[tuple[Answers, str]], set[Answers]]:
    """Draws label subsets and splits them by function.

    Args:
        seed: the seed of the draw.
        n_subsets: how many subsets in all.
        n_heldout: how many of them are held out.
        n_val: how many of them validate.
        forbidden: function keys of reserved properties, which no subset task may have.
        trained: function keys of training properties, which only training subsets may have.

    Returns:
        The subsets with their splits, in the order of their digits, and the reserved keys.
    """
    keys = [tuple(bool(n >> d & 1) for d in range(10)) for n in range(1, 1023)]
    keys = sorted({function_key(k) for k in keys} - forbidden)
    random.Random(f"subsets:{seed}").shuffle(keys)
    free = [k for k in keys if k not in trained]
    both = [a for k in free for a in (k, complement(k))]
    held, val = both[:n_heldout], both[n_heldout : n_heldout + n_val]
    reserved = {function_key(a) for a in held + val}
    val = [a for a in val if function_key(a) not in {function_key(h) for h in held}]
    train = [a for k in keys if k not in reserved for a in (k, complement(k))]
    train = train[: n_subsets - len(held) - len(val)]
    if len(held) < n_heldout or len(held) + len(val) + len(train) < n_subsets:
        raise ValueError(
            f"n_subsets={n_subsets} is too many: reserved properties leave "
            f"{len(held) + len(val) + len(train)} subsets"
        )
    chosen = [(a, "heldout_tasks") for a in held] + [(a, "val") for a in val]
    chosen += [(a, "train") for a in train]
    return sorted(chosen, key=lambda item: (sum(item[0]), item[0])), reserved
