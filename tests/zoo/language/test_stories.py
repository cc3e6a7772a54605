"""Stories in files: what is read, and which line and field an error names."""

from __future__ import annotations

import json

import pytest

from hypergen.errors import UsageError
from hypergen.zoo.language.stories import StoryFileError, read_stories

QUESTION = {"question": "Who ran?", "options": ["Tom", "Ann", "Bo", "Al"], "answer": "C"}


def story(number=0, **changes):
    made = {"id": f"s{number}", "split": "test", "story": "Bo ran.", "questions": [QUESTION]}
    return {k: v for k, v in {**made, **changes}.items() if v is not None}


def write(tmp_path, *rows):
    path = tmp_path / "stories.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path


def test_a_file_is_read(tmp_path):
    path = write(tmp_path, story(), "", story(1, split="dev", story=" Ann sat.\n"))
    first, second = read_stories(path)
    assert (first.id, first.split, second.text) == ("s0", "test", "Ann sat.")
    assert first.questions[0].options[first.questions[0].answer] == "Bo"
    assert first.questions[0].text == "\n\nQuestion: Who ran?\nAnswer:"
    assert [s.id for s in read_stories(path, "dev")] == ["s1"]
    with pytest.raises(UsageError, match=r"no story of the split 'tst'. Did you mean 'test'"):
        read_stories(path, "tst")


def changed(**fields):
    return story(questions=[QUESTION, {k: v for k, v in {**QUESTION, **fields}.items() if v}])


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("{", ""),
        ("[1]", ""),
        (story(id=None), "id"),
        (story(split=3), "split"),
        (story(story=" "), "story"),
        (story(questions=[]), "questions"),
        (story(questions=["x"]), "questions[0]"),
        (changed(question=None), "questions[1].question"),
        (changed(options=["a"]), "questions[1].options"),
        (changed(options=["a", ""]), "questions[1].options[1]"),
        (changed(answer="E"), "questions[1].answer"),
        (changed(answer=2), "questions[1].answer"),
        (story(9), "id"),
    ],
)
def test_an_error_names_file_line_and_field(tmp_path, row, field):
    with pytest.raises(StoryFileError) as caught:
        read_stories(write(tmp_path, story(9), row))
    assert (caught.value.line, caught.value.field) == (2, field)
    assert "stories.jsonl, line 2" in str(caught.value)


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(StoryFileError, match=r"none\.jsonl does not exist"):
        read_stories(tmp_path / "none.jsonl")
    with pytest.raises(StoryFileError, match="holds no story"):
        read_stories(write(tmp_path, ""))
    (tmp_path / "raw.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(StoryFileError, match=r"raw\.jsonl is no UTF-8"):
        read_stories(tmp_path / "raw.jsonl")
