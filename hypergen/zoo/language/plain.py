"""Plain text: files and folders → documents → token numbers, split by document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.io import read_json, save_safetensors, write_json
from hypergen._utils.language_models import file_sha256
from hypergen._utils.progress import progress
from hypergen._utils.seeding import stable_seed
from hypergen.zoo.language.tokens import encode, tokenizer_fingerprint

SUFFIXES = (".txt", ".md", ".jsonl")
FIELDS = ("text", "story")  # of a line of JSONL, the first that is there
_BLOCK = 1 << 16  # characters read at a time
_SHARD = 1 << 23  # tokens of a stored table, about
_TOGETHER = 64  # documents tokenised in one call


def text_files(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files of plain text among files and folders, those of a folder in order of their names.

    Raises:
        UsageError: A path does not exist, is of another kind, or a folder holds no such file.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    found: list[Path] = []
    for path in map(Path, given):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in SUFFIXES)
            if not inside:
                raise UsageError(f"{path} holds no plain text ({', '.join(SUFFIXES)})")
            found += inside
        elif not path.exists():
            raise UsageError(f"{path} does not exist")
        elif path.suffix not in SUFFIXES:
            raise UsageError(f"{path} is no plain text: give {', '.join(SUFFIXES)}")
        else:
            found.append(path)
    if not found:
        raise UsageError("no text given: name files or folders")
    return list(dict.fromkeys(found))


def documents(path: str | Path, most: int) -> Iterator[str]:
    """The documents of a file, read in pieces: a large file is never held whole.

    A line of JSONL is a document (its `text` or `story`). Of other files each part of at most
    `most` characters is one, cut at a blank line, else at a line's end, else at a space.

    Args:
        path: The file.
        most: Most characters of a part.

    Raises:
        UsageError: The file cannot be read, is no UTF-8 text, or a line of JSONL is malformed;
            names file, line and field.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            found = _lines(path, file) if path.suffix == ".jsonl" else _parts(file, most)
            for text in found:
                if "\0" in text:
                    raise UsageError(f"{path} holds NUL characters: it is a binary file")
                if text.strip():
                    yield text
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _lines(path: Path, file: Any) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise UsageError(f"{path}, line {number} holds a {type(data).__name__}, not an object")
        field = next((f for f in FIELDS if f in data), None)
        if field is None:
            raise UsageError(f"{path}, line {number} has no field {' or '.join(map(repr, FIELDS))}")
        if not isinstance(data[field], str):
            raise UsageError(f"{path}, line {number}: field {field!r} must be a text")
        yield data[field]


def _parts(file: Any, most: int) -> Iterator[str]:
    held = ""
    while block := file.read(min(_BLOCK, most)):
        held += block
        while len(held) > most:
            cuts = (held.rfind(mark, 1, most) + len(mark) for mark in ("\n\n", "\n", " "))
            end = next((cut for cut in cuts if cut >= most // 2), most)
            yield held[:end]
            held = held[end:]
    yield held


class PlainText:
    """The documents of plain text files, as token numbers.

    Tokens are kept in `cache` under the hash of a file's bytes, in tables of about eight million
    that are read piece by piece; without a cache, in memory. Documents of equal text fall on the
    same side of the split.

    Args:
        paths: Files and folders, see `text_files`.
        tokenizer: A fast transformers tokenizer; no special tokens are added.
        val_share: Share of the documents to validate on; at least one as soon as there are two
            different ones, unless it is 0.
        seed: Seed of the split.
        cache: Folder of tokens.
        document_chars: Most characters of a document of `.txt` and `.md`, see `documents`.

    Attributes:
        lengths: `[n]`, tokens of each document.
        splits: `"train"` and `"val"` → numbers of documents, rising.

    Raises:
        UsageError: A file cannot be read, or there is no document; names it.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        tokenizer: Any,
        *,
        val_share: float = 0.05,
        seed: int = 0,
        cache: str | Path | None = None,
        document_chars: int = 1 << 14,
    ) -> None:
        if not 0 <= val_share < 1:
            raise UsageError(f"val_share is {val_share}: it is a share, from 0 to below 1")
        if document_chars < 16:
            raise UsageError(f"document_chars is {document_chars}: give at least 16")
        self.tokenizer, self.document_chars = tokenizer, document_chars
        self.files = text_files(paths)
        self._cache = None if cache is None else Path(cache)
        identity = tokenizer_fingerprint(tokenizer)
        self._shards: list[_Shard] = []
        bar = progress(self.files, desc="tokenising", unit="file")
        for path in bar:
            self._shards += self._file(path, identity)
        if not self._shards:
            raise UsageError(f"{self.files[0]} and the other files hold no text")
        self.lengths = torch.cat([shard.offsets.diff() for shard in self._shards])
        sizes = torch.tensor([len(shard.offsets) - 1 for shard in self._shards])
        self._first = sizes.cumsum(0) - sizes
        keys = torch.cat([shard.keys for shard in self._shards])
        self.splits = _split(keys, val_share, seed)
        self._usable: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens(self, document: int, start: int = 0, stop: int | None = None) -> Tensor:
        """Token numbers `[stop - start]` of a part of a document (of all of it by default)."""
        shard = int(torch.searchsorted(self._first, document, right=True)) - 1
        return self._shards[shard].tokens(document - int(self._first[shard]), start, stop)

    def draw(
        self, split: str, count: int, length: int, least: int, generator: torch.Generator
    ) -> list[Tensor]:
        """Windows of up to `length` tokens; every token is about as likely to be in one.

        Args:
            split: `"train"` or `"val"`.
            count: Number of windows.
            length: Tokens of a window; shorter documents give all they have.
            least: Only documents of at least this many tokens.
            generator: Source of randomness; the draw depends on nothing else.

        Raises:
            UsageError: No document of the split is long enough, or there is no such split.
        """
        numbers, ends = self._ends(split, least)
        draw = torch.rand(count, 2, generator=generator, dtype=torch.float64)
        at = torch.searchsorted(ends, (draw[:, 0] * ends[-1]).long(), right=True)
        chosen = numbers[at]
        room = (self.lengths[chosen] - length).clamp(min=0)
        start = (draw[:, 1] * (room + 1)).long()
        stop = (start + length).minimum(self.lengths[chosen])
        spans = zip(chosen.tolist(), start.tolist(), stop.tolist(), strict=True)
        return [self.tokens(*span) for span in spans]

    def _ends(self, split: str, least: int) -> tuple[Tensor, Tensor]:
        if (split, least) not in self._usable:
            if split not in self.splits:
                raise UsageError(f"there is no split {split!r}.{did_you_mean(split, self.splits)}")
            numbers = self.splits[split]
            numbers = numbers[self.lengths[numbers] >= least]
            if not len(numbers):
                raise UsageError(
                    f"no document of the split {split!r} has {least} tokens: give longer texts, "
                    "or cut them into shorter pieces"
                )
            self._usable[split, least] = numbers, self.lengths[numbers].cumsum(0)
        return self._usable[split, least]

    # -- files ---------------------------------------------------------------------------------

    def _file(self, path: Path, identity: str) -> list[_Shard]:
        if self._cache is None:
            return [_Shard(table) for table in self._tables(path)]
        key = json.dumps([identity, file_sha256(path), path.suffix, self.document_chars])
        name = hashlib.sha256(key.encode()).hexdigest()
        index = self._cache / f"{name}.json"
        if index.is_file() and isinstance(found := read_json(index), dict):
            files = [self._cache / f"{name}-{i:05d}.safetensors" for i in range(found["shards"])]
            if all(file.is_file() for file in files):
                return [_Shard(file) for file in files]
        made: list[Path] = []
        for i, table in enumerate(self._tables(path)):
            made.append(save_safetensors(self._cache / f"{name}-{i:05d}.safetensors", table))
        write_json(index, {"shards": len(made)})  # last: what is there is whole
        return [_Shard(file) for file in made]

    def _tables(self, path: Path) -> Iterator[dict[str, Tensor]]:
        """Tokens of a file's documents, in tables of about `_SHARD` tokens."""
        rows: list[Tensor] = []
        keys: list[int] = []
        texts: list[str] = []
        size = 0

        def tokenise() -> int:
            new = [torch.tensor(row, dtype=torch.int32) for row in encode(self.tokenizer, texts)]
            rows.extend(new)
            keys.extend(stable_seed(text) for text in texts)
            texts.clear()
            return sum(map(len, new))

        for text in documents(path, self.document_chars):
            texts.append(text)
            if len(texts) == _TOGETHER:
                size += tokenise()
            if size >= _SHARD:
                yield _table(rows, keys)
                rows, keys, size = [], [], 0
        tokenise()
        if rows:
            yield _table(rows, keys)


def _table(rows: list[Tensor], keys: list[int]) -> dict[str, Tensor]:
    lengths = torch.tensor([0, *map(len, rows)])
    return {
        "values": torch.cat(rows),
        "offsets": lengths.cumsum(0),
        "keys": torch.tensor(keys, dtype=torch.long),
    }


class _Shard:
    """A table of documents: in memory, or in a file of which only what is asked for is read."""

    def __init__(self, source: dict[str, Tensor] | Path) -> None:
        self.values: Any
        if isinstance(source, Path):
            from safetensors import safe_open

            file = safe_open(str(source), framework="pt")
            self.offsets, self.keys = file.get_tensor("offsets"), file.get_tensor("keys")
            self.values = file.get_slice("values")
        else:
            self.offsets, self.keys = source["offsets"], source["keys"]
            self.values = source["values"]

    def tokens(self, document: int, start: int, stop: int | None) -> Tensor:
        begin, end = self.offsets[document : document + 2].tolist()
        stop = end if stop is None else min(end, begin + stop)
        values: Tensor = self.values[begin + start : stop]
        return values.long()


def _split(keys: Tensor, share: float, seed: int) -> dict[str, Tensor]:
    """Numbers of the documents to train and to validate on, by what they say."""
    distinct, row = keys.unique(return_inverse=True)
    ranks = torch.tensor([stable_seed("documents", seed, key) for key in distinct.tolist()])
    wanted = round(share * len(distinct))
    if share and len(distinct) > 1:
        wanted = min(max(1, wanted), len(distinct) - 1)
    is_val = torch.zeros(len(distinct), dtype=torch.bool)
    is_val[ranks.argsort()[:wanted]] = True
    held = is_val[row]
    return {"train": (~held).nonzero()[:, 0], "val": held.nonzero()[:, 0]}
