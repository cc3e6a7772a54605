"""Plain text: documents of files, their tokens, splits and windows."""

from __future__ import annotations

import json

import pytest
import tiny_language as tiny
import torch

from hypergen._utils.seeding import generator
from hypergen.errors import UsageError
from hypergen.zoo.language import plain
from hypergen.zoo.language.plain import PlainText, documents, text_files

TOKENIZER = tiny.tokenizer()
WORDS = [*tiny.ANIMALS, *tiny.THINGS]


def sentence(number, words=30):
    return " ".join(WORDS[(number * 7 + i * (number + 1)) % len(WORDS)] for i in range(words))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(sentence(i) for i in range(8)))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.md").write_text("cat dog cow")
    rows = [{"text": sentence(20 + i)} for i in range(4)] + [{"story": sentence(30)}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "other.bin").write_bytes(b"\0")
    return tmp_path


def test_files_are_found_in_order(folder):
    names = [p.name for p in text_files(folder)]
    assert names == ["a.txt", "c.jsonl", "b.md"]
    with pytest.raises(UsageError, match=r"other\.bin is no plain text"):
        text_files(folder / "other.bin")
    with pytest.raises(UsageError, match="does not exist"):
        text_files(folder / "none.txt")
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match="empty holds no plain text"):
        text_files(folder / "empty")


@pytest.mark.parametrize("most", [16, 50, 130, 10_000])
def test_a_large_file_is_cut_without_a_loss(folder, most, monkeypatch):
    monkeypatch.setattr(plain, "_BLOCK", 23)
    text = (folder / "a.txt").read_text()
    parts = list(documents(folder / "a.txt", most))
    assert "".join(parts) == text
    assert max(map(len, parts)) <= most
    if most == 130:
        assert all(part.endswith(("\n\n", " ")) for part in parts[:-1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n{', "x.jsonl, line 2 is not JSON"),
        ("x.jsonl", b'{"txt": "a"}', "line 1 has no field 'text' or 'story'"),
        ("x.jsonl", b'{"text": 3}', "field 'text' must be a text"),
        ("x.jsonl", b"[]", "holds a list"),
        ("x.txt", b"\xff\xfe", "x.txt is no UTF-8"),
        ("x.txt", b"a\0b", "x.txt holds NUL"),
        ("x.md", b" \n", "no text"),
    ],
)
def test_an_error_names_the_file(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        PlainText(tmp_path / name, TOKENIZER)


def test_tokens_are_those_of_the_documents(folder):
    text = PlainText(folder, TOKENIZER, document_chars=200)
    found = [TOKENIZER.decode(text.tokens(i)) for i in range(len(text))]
    expected = [d for p in text_files(folder) for d in documents(p, 200)]
    assert found == [" ".join(d.split()) for d in expected]
    assert torch.equal(text.tokens(0, 3, 9), text.tokens(0)[3:9])
    assert text.lengths.tolist() == [len(d.split()) for d in expected]


def test_the_cache_gives_the_same_and_is_read_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(plain, "_SHARD", 40)  # several tables a file
    monkeypatch.setattr(plain, "_TOGETHER", 2)
    cache = tmp_path / "cache"
    plainly = PlainText(folder, TOKENIZER, document_chars=200)
    made = PlainText(folder, TOKENIZER, document_chars=200, cache=cache)
    assert len(list(cache.glob("*.safetensors"))) > len(made.files)
    monkeypatch.setattr(plain, "encode", None)  # nothing is tokenised again
    again = PlainText(folder, TOKENIZER, document_chars=200, cache=cache)
    for text in (made, again):
        assert torch.equal(text.lengths, plainly.lengths)
        assert all(torch.equal(text.tokens(i), plainly.tokens(i)) for i in range(len(text)))
        assert torch.equal(text.tokens(1, 2, 5), plainly.tokens(1)[2:5])
        assert torch.equal(text.splits["val"], plainly.splits["val"])
    next(cache.glob("*.safetensors")).unlink()
    with pytest.raises(TypeError):  # a lost table is made again
        PlainText(folder, TOKENIZER, document_chars=200, cache=cache)


def test_equal_documents_fall_on_one_side(tmp_path):
    rows = [{"text": sentence(i % 6)} for i in range(24)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sides = set()
    for seed in range(6):
        text = PlainText(tmp_path / "a.jsonl", TOKENIZER, val_share=0.3, seed=seed)
        val = text.splits["val"].tolist()
        assert len(val) == 8
        assert {i % 6 for i in val}.isdisjoint(i % 6 for i in text.splits["train"].tolist())
        sides.add(tuple(val))
    assert len(sides) > 1
    one = PlainText(tmp_path / "a.jsonl", TOKENIZER, val_share=0.01)
    assert len(one.splits["val"]) == 4  # at least one text
    assert not len(PlainText(tmp_path / "a.jsonl", TOKENIZER, val_share=0).splits["val"])


def test_windows_depend_on_the_generator_alone(folder):
    text = PlainText(folder, TOKENIZER, document_chars=200)
    first, second = (text.draw("train", 50, 8, 4, generator("w", 1)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert {len(w) for w in first} == {8}
    long = text.draw("train", 20, 1000, 10, generator("w", 1))
    assert {len(w) for w in long} <= set(text.lengths[text.lengths >= 10].tolist())
    with pytest.raises(UsageError, match="no document of the split 'train' has 5000 tokens"):
        text.draw("train", 1, 8, 5000, generator("w", 1))
    with pytest.raises(UsageError, match="no split 'dev'"):
        text.draw("dev", 1, 8, 1, generator("w", 1))
