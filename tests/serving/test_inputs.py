"""What `hypergen generate` reads: errors name the file, the line and the field."""

from __future__ import annotations

import argparse
import json

import pytest

from hypergen.errors import UsageError
from hypergen.serving import read_demos
from hypergen.serving.inputs import read_inputs


def test_bad_files_name_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"input": "1", "output": "2"}\n{"input"\n')
    with pytest.raises(UsageError, match=r"a\.jsonl: line 2 is not valid JSON"):
        read_demos(path)
    path.write_text("[1]\n")
    with pytest.raises(UsageError, match=r"a\.jsonl: line 1 holds no JSON object"):
        read_demos(path)
    path.write_text("\n")
    with pytest.raises(UsageError, match=r"a\.jsonl is empty"):
        read_demos(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read as text"):
        read_demos(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"input": "a"}, "field 'output' is missing"),
        ({"output": "a"}, "field 'input' is missing"),
        ({"input": 3, "output": "a"}, "field 'input' must be a text, not a int"),
        ({"input": "a", "output": None}, "field 'output' must be a text, not a NoneType"),
        ({"input": "a", "output": []}, "field 'output' is an empty list"),
        ({"input": "a", "output": [1]}, "field 'output' must be a text, not a int"),
        ({"input": " ", "output": "a"}, "field 'input' is empty"),
    ],
)
def test_every_line_needs_both_fields(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"input": "a", "output": "b"}) + "\n\n" + json.dumps(line) + "\n")
    with pytest.raises(UsageError, match=rf"a\.jsonl: line 3: {message}"):
        read_demos(path)


def test_lines_of_the_real_repository_are_taken(tmp_path):
    path = tmp_path / "a.jsonl"
    row = {"id": "task1-7", "input": "a", "output": ["b", "c"]}
    path.write_text(json.dumps(row) + "\n")
    assert read_demos(path) == [row]


def test_sentences_and_demonstrations_go_together(tmp_path):
    def read(**options):
        return read_inputs(argparse.Namespace(**options))

    files = []
    for name in ("a", "b"):
        files.append(str(tmp_path / name))
        (tmp_path / name).write_text(json.dumps({"input": name, "output": "x"}) + "\n")
    a, b = ([{"input": name, "output": "x"}] for name in ("a", "b"))
    assert read(demos=files) == {"demos": [a, b]}
    assert read(demos=files[0]) == {"demos": [a]}
    assert read(text="s", demos=files) == {"text": ["s", "s"], "demos": [a, b]}
    assert read(text=["s", "t"], demos=files) == {"text": ["s", "t"], "demos": [a, b]}
    assert read(text=["s", "t"], demos=files[1]) == {"text": ["s", "t"], "demos": [b, b]}
    with pytest.raises(UsageError, match="3 --text and 2 --demos do not go together"):
        read(text=["s", "t", "u"], demos=files)
    with pytest.raises(UsageError, match="only --text and --demos go together"):
        read(text="s", document=files[0])
