"""A text encoder that needs no model: hashed word and character n-grams."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hypergen._utils.errors import ConditionError
from hypergen.conditions.base import Condition, ConditionEncoder, check_texts


class HashingEncoder(ConditionEncoder):
    """Deterministic text encoding by feature hashing.

    Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009,
    arXiv:0902.2206. Each word is the sum of pseudo-random sign vectors of itself and its character
    3-grams (SHA-256, so any process and machine gives the same numbers). It knows spelling, not
    meaning: "prime" and "odd" are unrelated. For tests, and for when no language model is at hand.

    Args:
        dim: Width of the tokens.
        max_length: Most words of a text.
    """

    def __init__(self, dim: int = 256, max_length: int = 512) -> None:
        super().__init__()
        if dim < 8:
            raise ConditionError(f"HashingEncoder needs a width of at least 8, not {dim}")
        self._dim, self.max_length = dim, max_length

    @property
    def dim(self) -> int:
        """Width D of the tokens."""
        return self._dim

    def config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"dim": self._dim, "max_length": self.max_length}

    def forward(self, inputs: Any) -> Condition:
        """Encodes texts, `[B]` strings → tokens `[B, words, dim]`.

        Raises:
            ConditionError: A text is empty or has more than `max_length` words.
        """
        rows: list[Tensor] = []
        for i, text in enumerate(check_texts(inputs)):
            words = re.findall(r"\w+|[^\w\s]", text.lower())
            if len(words) > self.max_length:
                raise ConditionError(
                    f"text {i} has {len(words)} words; the encoder takes {self.max_length}: "
                    "shorten it"
                )
            rows.append(torch.stack([_word(word, self._dim) for word in words]))
        mask = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.bool)
        for i, row in enumerate(rows):
            mask[i, : len(row)] = True
        return Condition.from_tokens(pad_sequence(rows, batch_first=True), mask)


@lru_cache(maxsize=65536)
def _word(word: str, dim: int) -> Tensor:
    padded = f"<{word}>"
    grams = [padded, *(padded[i : i + 3] for i in range(len(padded) - 2))]
    total = sum(_signs(gram, dim) for gram in grams)
    return torch.from_numpy(np.asarray(total / np.sqrt(len(grams)), dtype=np.float32))


@lru_cache(maxsize=65536)
def _signs(gram: str, dim: int) -> np.ndarray:
    bits = hashlib.shake_256(gram.encode()).digest((dim + 7) // 8)
    unpacked = np.unpackbits(np.frombuffer(bits, dtype=np.uint8))[:dim]
    return unpacked.astype(np.float64) * 2 - 1
