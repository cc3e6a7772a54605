"""Task files: read in order, and every fault named by file and key."""

from __future__ import annotations

import json

import pytest

from hypergen.errors import UsageError
from hypergen.zoo.files import read_task_files


def write(folder, name, data):
    text = data if isinstance(data, str) else json.dumps(data)
    (folder / name).write_text(text)


def test_files_are_read_in_order_with_their_own_keys(tmp_path):
    write(tmp_path, "b.json", {"descriptions": ["x"], "answers": [1]})
    write(tmp_path, "a.json", {"name": "first", "descriptions": ["y", "z"]})
    write(tmp_path, "notes.txt", "not a task")
    first, second = read_task_files(tmp_path)
    assert (first.name, first.descriptions) == ("first", ("y", "z"))
    assert (second.name, second.data["answers"]) == ("b", [1])
    assert second.field("answers", "numbers", lambda v: v == [1]) == [1]
    with pytest.raises(UsageError, match=r"b\.json: key 'answers' must hold words"):
        second.field("answers", "words", lambda v: False)
    with pytest.raises(UsageError, match=r"b\.json: key 'other' is missing; it must hold words"):
        second.field("other", "words", bool)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", r"a\.json is not valid JSON"),
        ([], r"a\.json holds a list, not one JSON object"),
        ({"name": "", "descriptions": ["x"]}, r"a\.json: key 'name' must hold a text"),
        ({"name": 3, "descriptions": ["x"]}, r"a\.json: key 'name' must hold a text"),
        ({"name": "a"}, r"a\.json: key 'descriptions' is missing"),
        ({"descriptions": [1]}, r"a\.json: key 'descriptions' must hold a list of sentences"),
    ],
)
def test_a_fault_names_file_and_key(tmp_path, data, message):
    write(tmp_path, "a.json", data)
    with pytest.raises(UsageError, match=message):
        read_task_files(tmp_path)


def test_the_folder_must_hold_tasks_of_different_names(tmp_path):
    with pytest.raises(UsageError, match="holds no task: put one JSON file a task there"):
        read_task_files(tmp_path)
    with pytest.raises(UsageError, match="is not a folder of task files"):
        read_task_files(tmp_path / "none")
    write(tmp_path, "a.json", {"descriptions": ["x"]})
    write(tmp_path, "b.json", {"name": "a", "descriptions": ["x"]})
    with pytest.raises(UsageError, match=r"b\.json: key 'name' is 'a', as in a\.json"):
        read_task_files(tmp_path)
