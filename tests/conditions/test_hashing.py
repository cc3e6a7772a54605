"""The hashing encoder: the same numbers anywhere, by spelling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from hypergen.conditions import HashingEncoder
from hypergen.errors import ConditionError


def test_the_numbers_are_fixed():
    """Written down once: another process, machine or version must give these."""
    tokens = HashingEncoder(8)("even").tokens[0, 0]
    expected = torch.tensor(
        [-1.341641, 1.341641, -1.341641, -1.341641, -0.447214, -1.341641, 1.341641, -1.341641]
    )
    assert torch.allclose(tokens, expected, atol=1e-5)


def test_a_token_a_word_and_a_mark():
    c = HashingEncoder(16)(["Is it even, or odd?", "no"])
    assert c.mask.sum(1).tolist() == [7, 1]
    assert torch.equal(c.tokens[1, 1:], torch.zeros(6, 16))


def test_spelling_counts_and_case_does_not():
    c = HashingEncoder(256)(["numbers", "number", "zebra", "NUMBERS"])
    near, far = (float(cosine_similarity(c.pooled[0], c.pooled[i], dim=0)) for i in (1, 2))
    assert near > 0.5 > far
    assert torch.equal(c.pooled[0], c.pooled[3])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(min_size=1).filter(lambda s: s.strip()), min_size=1, max_size=4))
def test_any_text_encodes_alone_as_among_others(texts):
    encoder = HashingEncoder(16)
    together = encoder(texts)
    for i, text in enumerate(texts):
        assert torch.equal(encoder(text).tokens[0], together[i].trim().tokens[0])
    assert bool(together.mask.any(1).all())


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no text given"),
        (["a", "  \n"], "text 1 is empty"),
        (["a", 3], "text 1 is a int"),
        (["a b", "a b c d"], "text 1 has 4 words; the encoder takes 3"),
    ],
)
def test_bad_texts_are_told(texts, message):
    with pytest.raises(ConditionError, match=message):
        HashingEncoder(16, max_length=3)(texts)


def test_the_width_has_a_least():
    with pytest.raises(ConditionError, match="at least 8"):
        HashingEncoder(4)
