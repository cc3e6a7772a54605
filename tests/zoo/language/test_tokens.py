from __future__ import annotations

import torch
from tiny_language import tokenizer

from hypergen.zoo.language.tokens import Ragged, TokenCache, join


def test_rows_of_tables_are_joined_and_padded():
    one, two = Ragged.of([[1, 2], [], [3]]), Ragged.of([[7], [8, 9]])
    rows = torch.tensor([0, 1, 2])
    ids, bounds = join([(one, rows), (two, torch.tensor([1, 0, 1]))], pad=0)
    assert ids.tolist() == [[1, 2, 8, 9], [7, 0, 0, 0], [3, 8, 9, 0]]
    assert bounds.tolist() == [[0, 0, 0], [2, 0, 1], [4, 1, 3]]


def test_a_part_is_cut_at_its_end():
    one, two = Ragged.of([[1, 2, 3], [4, 5]]), Ragged.of([[9]])
    rows = torch.tensor([0, 1])
    cut = torch.tensor([2, 0])
    ids, _ = join([(one, rows), (two, torch.zeros_like(rows))], 0, {0: cut})
    assert ids.tolist() == [[1, 9, 0], [4, 5, 9]]


def test_tables_are_stacked():
    table = Ragged.cat([Ragged.of([[1], [2, 3]]), Ragged.of([]), Ragged.of([[4]])])
    assert table.lengths.tolist() == [1, 2, 1]
    assert join([(table, torch.tensor([2, 1]))], 0)[0].tolist() == [[4, 0], [2, 3]]


class Counting:
    """Texts that count how often they are read."""

    def __init__(self) -> None:
        self.reads = 0

    def __iter__(self):
        self.reads += 1
        return iter(["cat dog", "hen"])


def test_texts_are_tokenised_once_and_found_again_on_disk(tmp_path):
    texts = Counting()
    cache = TokenCache(tokenizer(), tmp_path)
    table = cache.table(texts, "a", 1)
    assert cache.table(texts, "a", 1) is table
    again = TokenCache(tokenizer(), tmp_path).table(texts, "a", 1)
    assert texts.reads == 1
    assert torch.equal(again.values, table.values)
    assert torch.equal(again.offsets, table.offsets)
    TokenCache(tokenizer(), tmp_path).table(texts, "b", 1)
    TokenCache(tokenizer(special=True), tmp_path).table(texts, "a", 1, special=True)
    assert texts.reads == 3


def test_a_damaged_table_is_made_again(tmp_path):
    table = TokenCache(tokenizer(), tmp_path).table(["cat dog"], "a")
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"broken")
    again = TokenCache(tokenizer(), tmp_path).table(["cat dog"], "a")
    assert torch.equal(again.values, table.values)
