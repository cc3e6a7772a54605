"""Variants of tasks: instances, labels and descriptions agree."""

from __future__ import annotations

import json
import re

import pytest

from hypergen.errors import UsageError
from hypergen.zoo.language import Instance, TextTask
from hypergen.zoo.language.augment import KINDS, augment, variant

LABELS = ("not sure", "positive", "negative", "mixed")


def closed(**changes) -> TextTask:
    rows = [Instance(f"text {i}", (LABELS[i % 4],)) for i in range(24)]
    values = {
        "name": "mood",
        "family": "moods",
        "descriptions": ("Judge the text {task}.", "What is the mood?", "Classify.", "Mood?"),
        "instances": {"train": tuple(rows[:16]), "test": tuple(rows[16:])},
        "examples": tuple(rows[:4]),
        "labels": LABELS,
    }
    return TextTask(**{**values, **changes})


def opened(*outputs: tuple[str, ...]) -> TextTask:
    outputs = outputs or (("New York", "NYC"), ("Rome",), ("Rio de Janeiro",), ("Bonn",))
    rows = tuple(Instance(f"place {i}", o) for i, o in enumerate(outputs))
    return TextTask("city", "cities", ("Name the city.",), {"test": rows, "train": rows}, rows[:1])


def answers(task: TextTask, split: str = "train") -> list[str]:
    return [row.outputs[0] for row in task.instances[split]]


def mapping(task: TextTask, made: TextTask) -> dict[str, str]:
    """Old answer → new answer; every pair of equal inputs must agree."""
    old = {row.input: row.outputs[0] for rows in task.instances.values() for row in rows}
    pairs = {(old[r.input], r.outputs[0]) for rows in made.instances.values() for r in rows}
    assert len({a for a, _ in pairs}) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_what_a_variant_must_keep(kind):
    words = opened(("Ulm",), ("Rome",), ("Lima", "City of Kings"), ("Bonn",))
    task = {"length": words, "reverse_words": opened()}.get(kind, closed())
    made = variant(task, kind)
    assert made.family == task.family
    assert made.metadata["variant_of"] == task.name
    assert made.metadata["variant"] == kind
    assert len(made.descriptions) == len(task.descriptions)
    for old, new in zip(task.descriptions, made.descriptions, strict=True):
        assert old in new  # braces of its own are left alone
        assert len(new) > len(old) + 5
    assert len(made.examples) == len(task.examples)
    assert set(made.instances) == {"train", "test"}
    names = mapping(task, made)
    for old, new in zip(task.examples, made.examples, strict=True):
        assert new.input != old.input or new.outputs[0] == names[old.outputs[0]]
    if made.labels:
        assert {*answers(made), *answers(made, "test")} <= set(made.labels)
        assert len(set(made.labels)) == len(made.labels)
    assert variant(task, kind) == made  # by the seed alone


def test_a_subset_says_which_labels_are_left():
    sizes = set()
    for number in range(8):
        made = variant(closed(), "subset", number=number)
        sizes.add(len(made.labels))
        assert set(made.labels) < set(LABELS)
        assert set(answers(made)) == set(made.labels)
        assert len(answers(made)) == 4 * len(made.labels)
        assert {row.outputs[0] for row in made.examples} <= set(made.labels)
        for text in made.descriptions:
            assert ", ".join(made.labels) in text
            assert not any(label in text for label in set(LABELS) - set(made.labels))
    assert sizes == {2, 3}
    two = closed(
        labels=LABELS[:2], instances={"train": (Instance("a", (LABELS[0],)),)}, examples=()
    )
    assert variant(two, "subset") is None


def test_listed_labels_stand_in_a_new_order():
    orders = set()
    for number in range(6):
        made = variant(closed(), "listed", number=number)
        assert made.instances == closed().instances
        assert all(", ".join(made.labels) in text for text in made.descriptions)
        orders.add(made.labels)
    assert len(orders) > 2
    assert all(sorted(order) == sorted(LABELS) for order in orders)


def test_numbers_are_those_of_the_list():
    made = variant(closed(), "numbered")
    names = mapping(closed(), made)
    assert sorted(names.values()) == list("1234")
    for text in made.descriptions:
        said = dict(re.findall(r"(\d)\. ([a-z ]+?)(?= \d\.|\n|$)", text))
        assert {label: number for number, label in said.items()} == names


@pytest.mark.parametrize("kind", ["renamed", "swapped"])
def test_new_names_are_listed(kind):
    pools = set()
    for number in range(12):
        made = variant(closed(), kind, number=number)
        names = mapping(closed(), made)
        assert set(names) == set(LABELS)
        assert set(names.values()) == set(made.labels)
        assert all(old != new for old, new in names.items())
        assert (set(names.values()) == set(LABELS)) == (kind == "swapped")
        pools.add(frozenset(names.values()))
        for text in made.descriptions:
            for old, new in names.items():
                forms = (f'"{new}" for "{old}"', f"{old} = {new}", f'"{old}" becomes "{new}"')
                assert any(form in text for form in forms)
    assert len(pools) >= (1 if kind == "swapped" else 4)
    letters = closed(
        labels=("A", "B"),
        instances={"train": (Instance("a", ("A",)), Instance("b", ("B",)))},
        examples=(),
    )
    assert not {"A", "B"} & set(variant(letters, "renamed").labels)


@pytest.mark.parametrize(
    ("kind", "expected", "said"),
    [
        ("upper", ["NEW YORK", "ROME", "RIO DE JANEIRO", "BONN"], "capital|upper|CAPITALS"),
        ("quotes", ['"New York"', '"Rome"', '"Rio de Janeiro"', '"Bonn"'], "[Qq]uote"),
        ("prefix", ["Answer: New York", "Answer: Rome"], '"Answer:'),
        ("json", ['{"answer": "New York"}', '{"answer": "Rome"}'], "JSON"),
        ("repeat", ["New York New York", "Rome Rome"], "twice|two times|repeat"),
        ("reverse_words", ["York New", "Rome", "Janeiro de Rio", "Bonn"], "reverse|last to|back"),
        ("first_letter", ["N", "R", "R", "B"], "first character"),
        ("last_letter", ["k", "e", "o", "n"], "last character|ends with"),
        ("length", ["3", "4", "4"], "letters"),
    ],
)
def test_forms_and_steps_do_what_they_say(kind, expected, said):
    rows = opened()
    if kind == "length":  # of words alone: names of several have none
        rows = opened(("Ulm",), ("Rome",), ("Rio de Janeiro",), ("Bonn",))
    made = variant(rows, kind)
    assert answers(made)[: len(expected)] == expected
    assert len(answers(made)) == (3 if kind == "length" else 4)
    for number in range(4):
        assert all(re.search(said, text) for text in variant(rows, kind, number).descriptions)
    if kind == "json":
        assert json.loads(answers(made)[0]) == {"answer": "New York"}
    if kind == "upper":
        assert made.instances["train"][0].outputs == ("NEW YORK", "NYC")


def test_variants_that_are_none_are_not_made():
    assert variant(opened(("A",), ("B",)), "upper") is None  # changes nothing
    assert variant(opened(("Rome",), ("Bonn",)), "length") is None  # one answer for all
    assert variant(opened(("?",), ("!",)), "first_letter") is None  # nothing is left
    assert variant(opened(), "renamed") is None  # no closed set
    same = (Instance("a", ("a",)), Instance("b", ("A",)))
    case = closed(labels=("a", "A"), instances={"train": same}, examples=())
    assert variant(case, "upper") is None  # makes two labels one
    alone = {"train": closed().instances["train"], "test": (Instance("x", ("mixed",)),)}
    made = [variant(closed(instances=alone), "subset", number=n) for n in range(12)]
    assert all(task is None or "mixed" in task.labels for task in made)
    assert any(task is None for task in made)  # the test split would be empty


def test_variants_differ_and_follow_from_content_and_seed():
    tasks = [closed(), opened()]
    made = augment(tasks, per_task=12)
    contents = [(tuple(sorted(t.instances.items())), t.labels) for t in [*tasks, *made]]
    assert len(set(contents)) == len(contents)
    assert len({t.name for t in made}) == len(made)
    assert sum(t.metadata["variant_of"] == "mood" for t in made) == 12
    assert all(
        t.family == {"mood": "moods", "city": "cities"}[t.metadata["variant_of"]] for t in made
    )
    renamed = closed(name="other")
    again = augment([renamed], per_task=12)
    assert [t.hash for t in again] == [t.hash for t in made[:12]]
    assert augment([closed(), renamed], per_task=3)[:3] == augment([closed()], per_task=3)
    swapped_twice = augment([closed()], per_task=40, kinds=["upper", "quotes", "quotes"])
    assert sorted(t.metadata["variant"] for t in swapped_twice) == ["quotes", "upper"]
    other = augment(tasks, per_task=12, seed=1)
    assert [t.hash for t in other] != [t.hash for t in made]
    assert augment(tasks, per_task=0) == []


def test_wrong_arguments_are_named():
    with pytest.raises(UsageError, match="upper"):
        augment([closed()], kinds=["uper"])
    with pytest.raises(UsageError, match="per_task is -1"):
        augment([closed()], per_task=-1)
