"""Documents cut into pieces of text that are the same however the document arrives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from hypergen._utils.errors import ConditionError

# Most characters of a piece; longer lines are cut.
LIMIT = 1 << 14
_LINE = re.compile(r"[^\n]*\n+(?=[^\n])")
_BLOCK = 1 << 16  # characters read from a file at a time


def pieces(source: Any, name: str = "the document") -> Iterator[str]:
    """Cuts a document after each line break, or run of line breaks.

    A line of more than `LIMIT` characters is cut before the last space of its first `LIMIT`, or
    after them where there is none, and again. Where the cuts fall depends on the text alone, not on
    how it is split over the blocks of a file or the items of an iterable. No more than a block (or
    item) and a piece are held at a time.

    Args:
        source: A string, a file opened as text, or an iterable of strings, which are read as if
            joined.
        name: What messages call the document.

    Raises:
        ConditionError: Something else than text, or text with NUL characters (a binary file).
    """
    rest = ""
    for block in _blocks(source, name):
        if not isinstance(block, str):
            hint = ": open the file as text" if isinstance(block, bytes) else ""
            raise ConditionError(f"{name} is made of {type(block).__name__}, not of strings{hint}")
        if "\0" in block:
            raise ConditionError(f"{name} holds NUL characters: it is a binary file, not a text")
        rest += block
        start = 0
        while True:
            found = _LINE.match(rest, start)
            if found and found.end() - start <= LIMIT:
                end = found.end()
            elif len(rest) - start > LIMIT:
                space = rest.rfind(" ", start + 1, start + LIMIT)
                end = start + LIMIT if space < 0 else space
            else:
                break
            yield rest[start:end]
            start = end
        rest = rest[start:]
    if rest:
        yield rest


def _blocks(source: Any, name: str) -> Iterator[Any]:
    if isinstance(source, str):
        yield source
    elif hasattr(source, "read"):
        while block := source.read(_BLOCK):
            yield block
    elif isinstance(source, Iterable) and not isinstance(source, bytes):
        yield from source
    else:
        raise ConditionError(f"{name} is a {type(source).__name__}, not a string")
