"""Text files that carry their own hash, so that any changed byte is found.

The hash covers the text as it stands with the hash itself left empty. The text must moreover be
exactly what the writer makes of its content: a changed blank is a changed byte too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hypergen._utils.errors import RunError
from hypergen._utils.io import dump_json

_SEAL = "sha256"


def seal_json(data: Mapping[str, Any]) -> str:
    """JSON text with its hash under `sha256`."""
    return dump_json({**data, _SEAL: _hash(dump_json({**data, _SEAL: ""}))})


def open_json(text: bytes) -> dict[str, Any]:
    """Reads what `seal_json` wrote.

    Raises:
        RunError: Any byte differs from what was written.
    """
    data = _object(text)
    seal = data.pop(_SEAL, None)
    if seal is None or text != seal_json(data).encode():
        raise RunError("it was damaged or changed after it was written: its hash does not fit")
    return data


def seal_lines(head: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """One line of JSON for the head, with the hash of everything, and one for each row."""
    body = "".join(_line(row) for row in rows)
    return _line({**head, _SEAL: _hash(_line({**head, _SEAL: ""}) + body)}) + body


def open_lines(text: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Reads what `seal_lines` wrote: the head without its hash, and the rows.

    Raises:
        RunError: Any byte differs from what was written.
    """
    first, _, body = text.partition(b"\n")
    head = _object(first)
    seal = head.pop(_SEAL, None)
    expected = hashlib.sha256(_line({**head, _SEAL: ""}).encode() + body).hexdigest()
    if seal != expected or first + b"\n" != _line({**head, _SEAL: seal}).encode():
        raise RunError("it was damaged or changed after it was written: its hash does not fit")
    return head, [_object(line) for line in body.splitlines()]


def _line(value: Mapping[str, Any]) -> str:
    # Separators and order fixed: the text is part of what is hashed. ASCII, so that a line can
    # be cut at line ends of any alphabet.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _object(text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"it is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise RunError(f"it holds a {type(data).__name__}, not an object")
    return data
