from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_zoo import plain_rows, write_rows

from hypergen.errors import UsageError
from hypergen.zoo.reading import groups_of, split
from hypergen.zoo.store import Row

runs_of_zoo = st.lists(
    st.tuples(
        st.integers(0, 5),  # task
        st.one_of(st.none(), st.integers(0, 11)),  # parent run
        st.integers(1, 3),  # checkpoints
    ),
    min_size=3,
    max_size=12,
)


@settings(max_examples=40)
@given(runs_of_zoo, st.sampled_from(["task", "family", "run"]), st.integers(0, 3))
def test_no_run_parent_task_or_family_straddles(runs, by, seed):
    rows = [
        Row(f"run{i}", step, "net", f"task{task}", parent="" if up is None else f"run{up}")
        for i, (task, up, steps) in enumerate(runs)
        for step in range(steps)
    ]
    families = {f"task{i}": f"family{i // 2}" for i in range(6)}
    with tempfile.TemporaryDirectory() as folder:
        zoo = write_rows(Path(folder) / "zoo", rows, families=families)
        if len(groups_of(zoo, by)) < 2:
            with pytest.raises(UsageError, match="independent groups"):
                split(zoo, by, {"train": 0.7, "test": 0.3}, seed)
            return
        parts = split(zoo, by, {"train": 0.7, "test": 0.3}, seed)
    assert all(len(part) for part in parts.values())
    assert sum(len(part) for part in parts.values()) == len(zoo)

    def of(part, field):
        return {field(row) for row in part.rows}

    train, test = parts["train"], parts["test"]
    for field in [
        lambda row: row.run,
        *([] if by == "run" else [lambda row: row.task, lambda row: families[row.task]]),
    ]:
        assert not of(train, field) & of(test, field)
    assert not of(train, lambda row: row.parent) & of(test, lambda row: row.run)
    assert not of(test, lambda row: row.parent) & of(train, lambda row: row.run)


def test_fractions_count_groups_and_order_does_not_matter(tmp_path):
    rows = plain_rows(runs=20, steps=2, tasks=20)
    zoo = write_rows(tmp_path / "zoo", rows)
    parts = split(zoo, "run")
    assert {name: len(part) for name, part in parts.items()} == {"train": 32, "val": 4, "test": 4}
    assert all(list(part.rows) == sorted(part.rows, key=zoo.rows.index) for part in parts.values())
    random.shuffle(rows)
    again = split(write_rows(tmp_path / "other", rows), "run")
    for name in parts:
        assert {row.run for row in again[name]} == {row.run for row in parts[name]}
    other = split(zoo, "run", seed=1)
    assert {row.run for row in other["train"]} != {row.run for row in parts["train"]}


def test_heldout_names_are_exactly_the_last_split(tmp_path):
    rows = plain_rows(runs=12, steps=2, tasks=6)
    families = {"task0": "first", "task1": "first"}
    zoo = write_rows(tmp_path / "zoo", rows, families=families)
    parts = split(zoo, "task", heldout=["task3"])
    assert {row.task for row in parts["test"]} == {"task3"}
    assert {row.task for row in parts["train"]} | {row.task for row in parts["val"]} == {
        f"task{i}" for i in (0, 1, 2, 4, 5)
    }
    parts = split(zoo, "family", heldout=["first"])
    assert {row.task for row in parts["test"]} == {"task0", "task1"}
    parts = split(zoo, "run", heldout=["run1"])
    assert {row.run for row in parts["test"]} == {"run1"}
    with pytest.raises(UsageError, match="Did you mean 'task3'"):
        split(zoo, "task", heldout=["taks3"])


def test_checkpoints_without_a_task_go_by_run(tmp_path):
    rows = [*plain_rows(), *(Row(f"lone{i}", s, "net") for i in range(4) for s in range(2))]
    zoo = write_rows(tmp_path / "zoo", rows)
    assert len(groups_of(zoo, "task")) == 3 + 4
    bare = zoo.select(where=lambda row: not row.task)
    with pytest.raises(UsageError, match="split by 'run'"):
        split(bare, "task")
    assert len(split(bare, "run")) == 3


def test_what_cannot_be_split_is_refused_with_the_reason(tmp_path):
    zoo = write_rows(tmp_path / "zoo", plain_rows(tasks=1))
    with pytest.raises(UsageError, match=r"2506\.07998"):
        split(zoo, "checkpoint")
    with pytest.raises(UsageError, match="Did you mean 'task'"):
        split(zoo, "tasks")
    with pytest.raises(UsageError, match="1 independent groups"):
        split(zoo, "task")
    with pytest.raises(UsageError, match="sum to"):
        split(zoo, "run", {"train": 0.5, "test": 0.4})
    with pytest.raises(UsageError, match="above 0"):
        split(zoo, "run", {"train": 1.0, "test": 0.0})
