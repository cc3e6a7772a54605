"""Encoded descriptions are found again, and only where nothing has changed."""

from __future__ import annotations

import pytest
import torch

from hypergen.conditions import HashingEncoder
from hypergen.training.bank import WordingBank
from hypergen.training.embeddings import cached_condition

TEXTS = [["say yes", "yes please"], ["say no to all of it"]]


@pytest.fixture
def calls(monkeypatch):
    seen = []
    forward = HashingEncoder.forward
    monkeypatch.setattr(
        HashingEncoder, "forward", lambda self, x: seen.append(list(x)) or forward(self, x)
    )
    return seen


def test_equal_texts_are_encoded_once(tmp_path, calls):
    first = WordingBank(HashingEncoder(8), TEXTS, [0, 1], cache=tmp_path)
    again = WordingBank(HashingEncoder(8), TEXTS, [0, 1], cache=tmp_path)
    assert len(calls) == 1
    for name in ("tokens", "mask", "pooled"):
        a, b = getattr(first.condition, name), getattr(again.condition, name)
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    rows = again.first(torch.tensor([1]))
    assert torch.equal(again.batch(rows)["condition"].pooled, first.condition.pooled[rows])


def test_another_encoder_or_text_is_encoded_anew(tmp_path, calls):
    for encoder, texts in (
        (HashingEncoder(8), TEXTS),
        (HashingEncoder(16), TEXTS),
        (HashingEncoder(8), [["say yes", "yes, please"], TEXTS[1]]),
    ):
        bank = WordingBank(encoder, texts, [0, 1], cache=tmp_path)
        assert bank.condition.dim == encoder.dim
    assert len(calls) == 3


def test_a_damaged_file_is_made_again(tmp_path, calls):
    WordingBank(HashingEncoder(8), TEXTS, [0, 1], cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:40])
    WordingBank(HashingEncoder(8), TEXTS, [0, 1], cache=tmp_path)
    WordingBank(HashingEncoder(8), TEXTS, [0, 1], cache=tmp_path)
    assert len(calls) == 2


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch, calls):
    monkeypatch.chdir(tmp_path)
    encoder = HashingEncoder(8)
    for _ in range(2):
        cached_condition(encoder, ["yes"], lambda: encoder(["yes"]))
    assert len(calls) == 2
    assert not list(tmp_path.iterdir())
