"""Which instances show a task, and suites in which a few are all there is."""

from __future__ import annotations

import pytest
import tiny_language as tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypergen.zoo.language import CausalSuite, read_task
from hypergen.zoo.language.causal import beside
from hypergen.zoo.language.few_shot import demo_rows, demonstrations, few_shot


@pytest.fixture
def task(tmp_path):
    rows = [tiny.instance(w, f"say {w}", split="train") for w in tiny.ANIMALS]
    rows += [tiny.instance(w, "thing", split="test") for w in tiny.THINGS[:3]]
    rows += [tiny.instance("cup", "thing", split="train")]  # also in the test
    rows += [tiny.instance("cat", "again", split="train")]  # twice in training
    examples = [{"input": t, "output": "shown"} for t in ("car", "dog", "big hat", "toy")]
    data = {"Definition": "say", "Positive Examples": examples, "Instances": rows}
    tiny.write_tasks(tmp_path, one=data)
    return read_task(tmp_path / "one.json")


def test_what_is_scored_or_ambiguous_never_shows_a_task(task):
    rows = task.instances["train"]
    inputs = [rows[i].input for i in demo_rows(task)]
    assert sorted(inputs) == sorted(set(tiny.ANIMALS) - {"cat"})
    assert inputs != sorted(inputs)
    assert demo_rows(task, 0, 3) == demo_rows(task)[:3]
    assert demo_rows(task, 1) != demo_rows(task)


def test_fewer_are_among_more_and_examples_fill_up(task):
    for count in range(12):
        few, more = demonstrations(task, count), demonstrations(task, count + 1)
        assert few == more[: len(few)]
    every = demonstrations(task, 100)
    assert len(every) == 7 + 2
    # "car" is scored, "dog" is there already.
    assert [row.input for row in every[7:]] == ["big hat", "toy"]
    assert len({row.input for row in every}) == len(every)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tiny.all_tasks(tmp_path_factory.mktemp("tasks"))
    options = {"prompt": {"description": True}, "prompt_dropout": 0.5, "max_length": 48}
    return CausalSuite(tiny.causal(), folder, **options)


def test_a_few_shot_suite_shows_and_trains_on_the_same_few(suite):
    number = suite.names.index("kinds")
    asked = [(number, 1), (number, 0), (suite.names.index("first"), 2)]
    made = few_shot(suite, asked, seed=0, k=3)
    assert [t.descriptions[0] for t in made.tasks] == [
        suite.tasks[n].descriptions[w] for n, w in asked
    ]
    assert [t.examples for t in made.tasks] == [t.instances["train"] for t in made.tasks]
    assert made.counts("train").tolist() == [3, 3, 3]
    assert made.tasks[0].examples != made.tasks[1].examples  # another draw
    assert made.tasks[2].instances["test"] == suite.tasks[asked[2][0]].instances["test"]
    assert made.tasks[0].choices(made.tasks[0].examples[0]) == suite.tasks[number].labels
    assert [t.choices(t.examples[0]) for t in made.tasks[2:]] == [
        suite.tasks[asked[2][0]].choices(made.tasks[2].examples[0])
    ]
    prompts = made.in_context(3)
    tasks, rows = torch.arange(3), torch.zeros(3, 1, dtype=torch.long)
    texts = suite.language_model.tokenizer.batch_decode(
        prompts.sequences(tasks, rows, "test", None)[0]
    )
    for task, text in zip(made.tasks, texts, strict=True):
        places = [text.find(f"Input : {d.input}".replace(",", " ,")) for d in task.examples]
        assert min(places) > 0, (text, task.examples)
        assert places == sorted(places)
    # Nothing changes in the suite that it was made of.
    assert suite.prompt_dropout == 0.5
    assert len(suite.tasks) == 4
    none = few_shot(suite, asked, seed=0, k=0)
    assert [t.examples for t in none.tasks] == [()] * 3
    assert not none.has_samples(0, "train")


@given(st.data())
def test_rows_beside_others_are_all_the_rest(data):
    count = data.draw(st.integers(1, 12))
    avoid = data.draw(st.lists(st.integers(0, count - 1), unique=True, max_size=count - 1))
    left = sorted(set(range(count)) - set(avoid))
    draw = (torch.arange(len(left))[None] + 0.5) / len(left)
    padded = torch.tensor([[-1, *avoid, -1]])
    assert beside(draw, torch.tensor([count]), padded)[0].tolist() == left
    edge = torch.tensor([[0.0, 1 - 1e-7]])
    assert beside(edge, torch.tensor([count]), padded)[0].tolist() == [left[0], left[-1]]
