"""Pieces of a document are the same however it arrives, and small."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypergen.conditions import pieces as module
from hypergen.conditions.pieces import pieces
from hypergen.errors import ConditionError

text = st.text(alphabet="ab \n", max_size=60)


@given(text, st.lists(st.integers(0, 60), max_size=8))
def test_pieces_do_not_depend_on_the_blocks(whole, cuts):
    edges = [0, *sorted(c for c in cuts if c < len(whole)), len(whole)]
    blocks = [whole[a:b] for a, b in pairwise(edges)]
    before = module.LIMIT
    module.LIMIT = 7
    try:
        got = list(pieces(whole))
        assert list(pieces(blocks)) == got
        assert list(pieces(iter(whole))) == got
        assert list(pieces(io.StringIO(whole))) == got
    finally:
        module.LIMIT = before
    assert "".join(got) == whole
    assert all(0 < len(piece) <= 7 for piece in got)


def test_lines_end_pieces_and_long_ones_are_cut_before_a_space(monkeypatch):
    assert list(pieces("a\n\n b c\nd")) == ["a\n\n", " b c\n", "d"]
    monkeypatch.setattr(module, "LIMIT", 6)
    assert list(pieces("abc def ghi")) == ["abc", " def", " ghi"]
    assert list(pieces("abcdefghi")) == ["abcdef", "ghi"]


def test_a_file_is_read_a_block_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 4)

    class File(io.StringIO):
        asked = 0

        def read(self, size=-1):
            File.asked += 1
            assert size == 4
            return super().read(size)

    stream = pieces(File("ab\ncd\n" * 100))
    assert next(stream) == "ab\n"
    assert File.asked == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a\0b", "page holds NUL characters: it is a binary file"),
        (["a", 3], "page is made of int, not of strings"),
        (io.BytesIO(b"abc"), "page is made of bytes, not of strings: open the file as text"),
        (b"abc", "page is a bytes, not a string"),
        (3, "page is a int, not a string"),
    ],
)
def test_what_is_no_text_is_refused(source, message):
    with pytest.raises(ConditionError, match=message):
        list(pieces(source, "page"))
