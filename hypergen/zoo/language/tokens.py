"""Tokens of many texts: stored without padding, gathered into padded batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import RunError
from hypergen._utils.io import load_safetensors, save_safetensors

IGNORED = -100  # cross-entropy leaves these positions out


class Ragged:
    """Rows of integers of different lengths in one flat tensor.

    Args:
        values: `[total]`, the rows one after the other.
        offsets: `[rows + 1]`, where each row starts; the last entry is the total.
    """

    def __init__(self, values: Tensor, offsets: Tensor) -> None:
        self.values, self.offsets = values.to(torch.int32), offsets.long()

    @staticmethod
    def of(rows: Sequence[Sequence[int]]) -> Ragged:
        """From lists."""
        lengths = torch.tensor([0, *map(len, rows)])
        return Ragged(torch.tensor([v for row in rows for v in row]), lengths.cumsum(0))

    @staticmethod
    def cat(parts: Sequence[Ragged]) -> Ragged:
        """Joins tables one after the other."""
        lengths = torch.cat([part.lengths for part in parts])
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
        return Ragged(torch.cat([part.values for part in parts]), offsets)

    @property
    def lengths(self) -> Tensor:
        """`[rows]`."""
        return self.offsets.diff()

    def __len__(self) -> int:
        return len(self.offsets) - 1


def join(
    parts: Sequence[tuple[Ragged, Tensor]], pad: int, cuts: Mapping[int, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Puts rows of several tables next to each other, padded on the right.

    Args:
        parts: Tables and, of each, the rows `[N]` to take.
        pad: Filling.
        cuts: Part → `[N]`, tokens to leave out at its end.

    Returns:
        Tokens `[N, L]`, and where each part starts and the last one ends: `[parts + 1, N]`.
    """
    lengths = torch.stack([table.lengths[rows] for table, rows in parts])
    for part, cut in (cuts or {}).items():
        lengths[part] -= cut
    bounds = torch.cat([torch.zeros_like(lengths[:1]), lengths.cumsum(0)])
    count = lengths.shape[1]
    out = torch.full((count, int(bounds[-1].max())), pad)
    for (table, rows), size, start in zip(parts, lengths, bounds, strict=False):
        sample = torch.repeat_interleave(torch.arange(count), size)
        within = torch.arange(len(sample)) - torch.repeat_interleave(size.cumsum(0) - size, size)
        source = table.offsets[rows][sample] + within
        out[sample, start[sample] + within] = table.values[source].long()
    return out, bounds


class TokenCache:
    """Token tables by the hash of what they were made from, in memory and optionally on disk.

    Args:
        tokenizer: A fast transformers tokenizer.
        folder: Where tables are kept as safetensors between runs; memory alone when not given.
    """

    def __init__(self, tokenizer: Any, folder: str | Path | None = None) -> None:
        self.tokenizer = tokenizer
        self.folder = None if folder is None else Path(folder)
        self._memory: dict[str, Ragged] = {}
        self._identity = tokenizer_fingerprint(tokenizer)

    def table(
        self,
        texts: Iterable[str],
        *key: Any,
        special: bool = False,
        max_length: int | None = None,
    ) -> Ragged:
        """Tokens of texts.

        Args:
            texts: The texts; iterated over only if the table is not known.
            key: What the texts depend on, JSON-serialisable (content hashes, settings).
            special: Whether the tokenizer adds its special tokens.
            max_length: Longer texts are cut.
        """
        full = json.dumps([self._identity, key, special, max_length], sort_keys=True)
        name = hashlib.sha256(full.encode()).hexdigest()
        if name not in self._memory:
            self._memory[name] = self._stored(name) or self._make(
                name, list(texts), special, max_length
            )
        return self._memory[name]

    def _stored(self, name: str) -> Ragged | None:
        if self.folder is None or not (path := self.folder / f"{name}.safetensors").is_file():
            return None
        try:
            tensors = load_safetensors(path)
        except RunError:
            return None  # a damaged table is made again
        if set(tensors) != {"values", "offsets"}:
            return None
        return Ragged(tensors["values"], tensors["offsets"])

    def _make(self, name: str, texts: list[str], special: bool, max_length: int | None) -> Ragged:
        table = Ragged.of(encode(self.tokenizer, texts, special, max_length))
        if self.folder is not None:
            tensors = {"values": table.values, "offsets": table.offsets}
            save_safetensors(self.folder / f"{name}.safetensors", tensors)
        return table


def encode(
    tokenizer: Any, texts: Sequence[str], special: bool = False, max_length: int | None = None
) -> list[list[int]]:
    """Token numbers of texts, without padding."""
    if not texts:
        return []
    options: dict[str, Any] = {"add_special_tokens": special, "verbose": False}
    if max_length is not None:
        options |= {"truncation": True, "max_length": max_length}
    rows: list[list[int]] = tokenizer(list(texts), **options)["input_ids"]
    return rows


def content_hash(texts: Sequence[str]) -> str:
    """SHA-256 of texts in their order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 of a tokenizer's vocabulary, special tokens, chat template and a probe text."""
    content = {
        "vocabulary": sorted(tokenizer.get_vocab().items()),
        "special": {k: str(v) for k, v in sorted(tokenizer.special_tokens_map.items())},
        "template": str(getattr(tokenizer, "chat_template", None)),
        "probe": encode(tokenizer, ["A b,  c\nÀ 1234"], special=True),
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
