from __future__ import annotations

import json

import pytest
from tiny_language import ANIMALS, all_tasks, echo, first_of_two, instance, kinds, write_tasks

from hypergen.errors import UsageError
from hypergen.zoo.language import TaskFileError, read_task, read_tasks


def test_a_file_gives_everything_that_it_holds(tmp_path):
    task = read_task(write_tasks(tmp_path, kinds=kinds()) / "kinds.json")
    assert (task.name, task.family, task.labels) == ("kinds", "Kinds", ("animal", "very big thing"))
    assert len(task.descriptions) == 2
    assert [len(task.instances[s]) for s in ("train", "test")] == [24, 8]
    assert task.examples[0].input == "cat"
    assert task.metadata == {"Categories": ["Kinds"]}


def test_without_a_split_the_content_decides(tmp_path):
    data = echo()
    data["Instances"].append(instance("cat", "cat"))  # a duplicate stays on its side
    one = read_task(write_tasks(tmp_path / "a", echo=data) / "echo.json")
    data["Instances"].reverse()
    two = read_task(write_tasks(tmp_path / "b", echo=data) / "echo.json")
    for split in ("train", "test"):
        assert {i.input for i in one.instances[split]} == {i.input for i in two.instances[split]}
    train, test = ({i.input for i in one.instances[s]} for s in ("train", "test"))
    assert not train & test
    assert len(test) == 3


def test_choices_are_labels_listed_items_or_none(tmp_path):
    tasks, _ = read_tasks(all_tasks(tmp_path))
    choices = {t.name: t.choices(t.instances["train"][0]) for t in tasks}
    assert choices["kinds"] == ("animal", "very big thing")
    assert choices["first"] == ("cat", "cup")
    assert choices["echo"] == ()


def test_few_outputs_that_recur_are_a_closed_set(tmp_path):
    rows = [instance(f"{w} {n}", w[0]) for w in ANIMALS[:3] for n in range(5)]
    task = read_task(
        write_tasks(tmp_path, t={"Definition": "first letter", "Instances": rows}) / "t.json"
    )
    assert task.labels == ()
    assert task.inferred_labels == ("c", "d")
    assert task.family == "t"


def test_the_hash_is_that_of_the_content(tmp_path):
    one = write_tasks(tmp_path, a=kinds(), b=kinds(), c=kinds(True))
    a, b, c = (read_task(one / f"{n}.json") for n in "abc")
    assert a.hash == b.hash != c.hash


def test_the_index_gives_families_and_filters_use_them(tmp_path):
    folder = all_tasks(tmp_path / "tasks")
    (tmp_path / "tasks_index.csv").write_text("task,family,x\nkinds,sorting,1\nswapped,sorting,2\n")
    tasks, _ = read_tasks(folder)
    assert {t.name: t.family for t in tasks} == {
        "echo": "Copying",
        "first": "Lists",
        "kinds": "sorting",
        "swapped": "sorting",
    }
    names = lambda **options: [t.name for t in read_tasks(folder, **options)[0]]  # noqa: E731
    assert names(families=["sorting"]) == ["kinds", "swapped"]
    assert names(without_families=["sorting", "Lists"]) == ["echo"]
    assert names(names=["first"]) == ["first"]
    with pytest.raises(UsageError, match=r"no family 'sortin'.*Did you mean 'sorting'"):
        read_tasks(folder, families=["sortin"])
    with pytest.raises(UsageError, match="no task 'frst'"):
        read_tasks(folder, names=["frst"])
    (tmp_path / "tasks_index.csv").write_text("name,kind\na,b\n")
    with pytest.raises(UsageError, match="columns 'task' and 'family'"):
        read_tasks(folder)


def test_the_layout_of_the_real_repository(tmp_path):
    write_tasks(tmp_path / "tasks", echo=echo())
    assert [t.name for t in read_tasks(tmp_path)[0]] == ["echo"]


BROKEN = [
    ("Instances", lambda d: d.pop("Instances")),
    ("Instances", lambda d: d.update(Instances=[])),
    ("Instances", lambda d: d.update(Instances="x")),
    ("Definition", lambda d: d.pop("Definition")),
    ("Definition", lambda d: d.update(Definition=[])),
    ("Labels", lambda d: d.update(Labels=[1])),
    ("Instances[2]", lambda d: d["Instances"].__setitem__(2, "x")),
    ("Instances[2].input", lambda d: d["Instances"][2].pop("input")),
    ("Instances[2].input", lambda d: d["Instances"][2].update(input=3)),
    ("Instances[2].output", lambda d: d["Instances"][2].pop("output")),
    ("Instances[2].output", lambda d: d["Instances"][2].update(output=[])),
    ("Instances[2].output", lambda d: d["Instances"][2].update(output=["plant"])),
    ("Instances[2].split", lambda d: d["Instances"][2].pop("split")),
    ("Positive Examples[0].output", lambda d: d["Positive Examples"][0].pop("output")),
]


@pytest.mark.parametrize(("field", "damage"), BROKEN)
def test_a_broken_file_is_named_with_its_field_and_others_go_on(tmp_path, field, damage):
    data = kinds()
    damage(data)
    folder = write_tasks(tmp_path, bad=data, good=first_of_two())
    tasks, errors = read_tasks(folder)
    assert [t.name for t in tasks] == ["good"]
    assert [(e.path.name, e.field) for e in errors] == [("bad.json", field)]
    assert "bad.json" in str(errors[0])
    assert field in str(errors[0])
    with pytest.raises(TaskFileError):
        read_tasks(folder, strict=True)


@pytest.mark.parametrize("text", ["{", "[]", '{"Instances": "\xff'])
def test_broken_json_is_named(tmp_path, text):
    folder = write_tasks(tmp_path, good=first_of_two())
    (folder / "bad.json").write_bytes(text.encode("latin-1"))
    tasks, errors = read_tasks(folder)
    assert len(tasks) == 1
    assert [(e.path.name, e.field) for e in errors] == [("bad.json", "")]


def test_a_folder_without_tasks_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="not a folder"):
        read_tasks(tmp_path / "none")
    with pytest.raises(UsageError, match="holds no task"):
        read_tasks(tmp_path)
    (tmp_path / "bad.json").write_text(json.dumps({}))
    with pytest.raises(TaskFileError, match=r"bad\.json"):
        read_tasks(tmp_path)
