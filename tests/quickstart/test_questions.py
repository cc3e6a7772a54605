import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypergen.quickstart.properties import all_concepts
from hypergen.quickstart.questions import TASK_SPLITS, TaskTable, build_tasks, concept_groups
from hypergen.quickstart.sentences import complement, function_key
from hypergen.quickstart.templates import FRAMES, LIST_STYLES
from hypergen.quickstart.wordings import (
    WORDS,
    fill,
    list_phrase,
    negate,
    split_templates,
)

ROOT = Path(__file__).resolve().parents[2]
RESERVED = ("val", "heldout_tasks", "val_properties", "heldout_properties")


@pytest.fixture(scope="module", params=[0, 1, 2])
def table(request: pytest.FixtureRequest) -> TaskTable:
    return build_tasks(seed=request.param)


# --- splits -----------------------------------------------------------------------------------


def test_sizes(table: TaskTable) -> None:
    subsets = [t for t in table if t.family == "subset"]
    properties = [t for t in table if t.family == "property"]
    assert len(subsets) == 600
    assert {sum(t.answers) for t in subsets} == set(range(1, 10))
    assert len({t.answers for t in subsets}) == 600
    assert len(table.indices("heldout_tasks")) == 120
    assert len(properties) == 2 * len(all_concepts()) >= 300
    assert all(0 < sum(t.answers) < 10 for t in table)
    assert len({t.name for t in table}) == len(table)
    for split, least in (("train", 8), ("heldout_tasks", 4), ("heldout_properties", 4)):
        families = [t for t in subsets + properties if t.split == split]
        assert all(len(t.descriptions["train"]) >= least for t in families)
    assert all(t.descriptions["heldout"] for t in subsets + properties)
    assert sum(len(table.indices(s)) for s in TASK_SPLITS) == len(table)


def test_no_training_task_has_a_reserved_function(table: TaskTable) -> None:
    trained = {function_key(table.tasks[i].answers) for i in table.indices("train")}
    for split in RESERVED:
        reserved = {function_key(table.tasks[i].answers) for i in table.indices(split)}
        assert reserved
        assert not reserved & trained, split
    validated = {function_key(table.tasks[i].answers) for i in table.indices("val")}
    heldout = {function_key(table.tasks[i].answers) for i in table.indices("heldout_tasks")}
    assert not validated & heldout


def test_a_concept_and_its_kin_share_a_split(table: TaskTable) -> None:
    split_of = {t.name.removeprefix("property:"): t.split for t in table if t.family == "property"}
    kin: dict[str, set[str]] = {}
    for concept in all_concepts():
        assert split_of[concept.name] == split_of[f"not-{concept.name}"]
        if concept.kin:
            kin.setdefault(concept.kin, set()).add(split_of[concept.name])
    assert all(len(splits) == 1 for splits in kin.values())


def test_composed_tasks_name_no_reserved_concept(table: TaskTable) -> None:
    reserved = {
        t.name.removeprefix("property:")
        for t in table
        if t.family == "property" and t.split != "train"
    }
    composed = [t for t in table if t.family == "composed"]
    assert len(composed) == 400
    for task in composed:
        left, _, right = re.split(r"-(and|or|but|plus)-", task.name.removeprefix("composed:"))
        assert not {left, right} & reserved


def test_no_sentence_is_shared_between_splits_or_wordings(table: TaskTable) -> None:
    trained = {s for _, s in table.sentences("train", "train")}
    for wording in ("val", "heldout", "paraphrase"):
        assert not trained & {s for _, s in table.sentences("train", wording)}
    for split in RESERVED:
        for wording in ("train", "val", "heldout", "paraphrase"):
            assert not trained & {s for _, s in table.sentences(split, wording)}


def test_a_sentence_means_one_function(table: TaskTable) -> None:
    meaning: dict[str, tuple[bool, ...]] = {}
    for task in table:
        for sentences in task.descriptions.values():
            for sentence in sentences:
                assert meaning.setdefault(sentence, task.answers) == task.answers, sentence


def test_training_sentences_use_no_reserved_template(table: TaskTable) -> None:
    def pattern(frame: str) -> re.Pattern[str]:
        parts = [re.escape(part) for part in re.split(r"\{[^}]*\}", frame)]
        return re.compile(".+".join(parts))

    # The most specific frame that fits is the one a sentence was made from: "Say yes if X." also
    # fits "Say yes if X, otherwise no."
    frames = [f for kind in FRAMES.values() for f in kind if not f.startswith("{")]
    frames.sort(key=len, reverse=True)
    patterns = [(pattern(f), table.templates[f]) for f in frames]
    assert {split for _, split in patterns} == {"train", "val", "heldout"}
    for _, sentence in table.sentences("train", "train"):
        fitting = [split for p, split in patterns if p.fullmatch(sentence)]
        assert not fitting or fitting[0] == "train", sentence


def test_every_kind_of_template_is_in_every_wording_split(table: TaskTable) -> None:
    for source in (FRAMES, LIST_STYLES):
        for templates in source.values():
            assert {table.templates[t] for t in templates} == {"train", "val", "heldout"}


def test_same_table_under_every_hash_seed() -> None:
    code = (
        "import hashlib; from hypergen.quickstart.questions import build_tasks;"
        "print(hashlib.sha256(repr(build_tasks(3)).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "4242")
    }
    assert len(digests) == 1


def test_seeds_differ_and_bad_sizes_are_refused() -> None:
    a, b = build_tasks(0), build_tasks(1)
    assert {a.tasks[i].name for i in a.indices("heldout_properties")} != {
        b.tasks[i].name for i in b.indices("heldout_properties")
    }
    with pytest.raises(ValueError, match="1022"):
        build_tasks(n_subsets=2000)
    with pytest.raises(KeyError, match="unknown task split"):
        a.indices("test")


def test_answers_matrix(table: TaskTable) -> None:
    held = table.indices("heldout_tasks")
    matrix = table.answers(held)
    assert matrix.shape == (120, 10)
    assert matrix.dtype == np.bool_
    assert tuple(matrix[3]) == table.tasks[held[3]].answers


# --- wording ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrase", "negated"),
    [
        ("is even", "is not even"),
        ("is not 3", "is 3"),
        ("has a loop", "does not have a loop"),
        ("can be halved", "cannot be halved"),
        ("exceeds four", "does not exceed four"),
        ("goes into 6", "does not go into 6"),
    ],
)
def test_negate(phrase: str, negated: str) -> None:
    assert negate(phrase) == negated


def test_fill() -> None:
    assert fill("Say yes if the digit {vp}.", "is even") == "Say yes if the digit is even."
    assert fill("{question:the digit}?", "has a loop") == "Does the digit have a loop?"
    assert fill("{question:it}?", "cannot be halved") == "Cannot it be halved?"
    assert fill("Accept digits that {plural}.", "is odd") == "Accept digits that are odd."
    assert fill("No when it {no_vp}, else yes.", "is odd") == "No when it is odd, else yes."


@given(
    digits=st.sets(st.integers(0, 9), min_size=1, max_size=9),
    style=st.sampled_from([s for kind in ("positive", "negative") for s in LIST_STYLES[kind]]),
    seed=st.integers(0, 10**6),
)
def test_a_list_names_exactly_its_digits(digits: set[int], style: str, seed: int) -> None:
    text = list_phrase(style, sorted(digits), random.Random(seed))
    words = text.replace("is one of", "is").replace("matches one of", "matches")
    named = [int(w) if w.isdigit() else WORDS.index(w) for w in re.findall(r"\w+", words)
             if w.isdigit() or w in WORDS]  # fmt: skip
    assert sorted(named) == sorted(digits)


@given(seed=st.integers(0, 10**6))
def test_templates_split_by_seed(seed: int) -> None:
    templates = split_templates(seed)
    assert templates == split_templates(seed)
    n = sum(len(frames) for source in (FRAMES, LIST_STYLES) for frames in source.values())
    assert len(templates) == n  # no template occurs twice


@given(answers=st.lists(st.booleans(), min_size=10, max_size=10).map(tuple))
def test_function_key(answers: tuple[bool, ...]) -> None:
    assert function_key(answers) == function_key(complement(answers))
    assert function_key(answers) in (answers, complement(answers))


def test_groups_close_over_function_and_kin() -> None:
    groups = concept_groups(all_concepts())
    assert sum(len(g) for g in groups) == len(all_concepts())
    assert len(groups) >= 80
    keys = [{function_key(c.answers) for c in g} | {c.kin for c in g if c.kin} for g in groups]
    for i, a in enumerate(keys):
        assert not any(a & b for b in keys[i + 1 :])
