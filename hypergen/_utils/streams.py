"""safetensors files written tensor by tensor, larger than memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hypergen._utils.errors import WeightsError
from hypergen._utils.io import PathLike, replacing

if TYPE_CHECKING:
    import torch

_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    Attributes:
        shape: Its shape.
        dtype: Its dtype.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorStream:
    """Takes the tensors of a file in any order."""

    def __init__(self, file: IO[bytes], entries: Mapping[str, Entry], start: int) -> None:
        self._file, self._entries = file, dict(entries)
        self._places: dict[str, int] = {}
        for name in sorted(self._entries):
            self._places[name] = start
            start += self._entries[name].size
        self._missing = set(self._entries)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Writes one tensor, in the dtype of its entry.

        Raises:
            WeightsError: The file has no such entry, or one of another shape.
        """
        entry = self._entries.get(name)
        if entry is None or tuple(tensor.shape) != entry.shape:
            raise WeightsError(
                f"the file was not opened for a tensor {name!r} of shape {tuple(tensor.shape)}"
            )
        import torch

        value = tensor.detach().to("cpu", entry.dtype).contiguous()
        self._file.seek(self._places[name])
        self._file.write(value.reshape(-1).view(torch.uint8).numpy().data)
        self._missing.discard(name)

    def finish(self) -> None:
        """Checks that nothing is missing.

        Raises:
            WeightsError: A tensor was never written; names it.
        """
        if self._missing:
            raise WeightsError(f"tensor {sorted(self._missing)[0]!r} was never written")


@contextmanager
def safetensors_stream(
    path: PathLike, entries: Mapping[str, Entry], metadata: Mapping[str, str] | None = None
) -> Iterator[TensorStream]:
    """Opens a safetensors file for writing tensor by tensor; it appears once it is complete.

    Equal input gives equal bytes, in whatever order tensors come.

    Args:
        path: File to write or replace.
        entries: Name → shape and dtype of every tensor.
        metadata: Strings to store in the header.

    Raises:
        WeightsError: A dtype has no name in the format, or a tensor was not written.
    """
    header: dict[str, object] = {}
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    offset = 0
    for name, entry in sorted(entries.items()):
        dtype = str(entry.dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise WeightsError(f"tensor {name!r} is {dtype}, which safetensors files cannot hold")
        end = offset + entry.size
        header[name] = {
            "dtype": _DTYPES[dtype],
            "shape": list(entry.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, Path(temporary).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        os.truncate(file.fileno(), 8 + len(text) + offset)
        stream = TensorStream(file, entries, 8 + len(text))
        yield stream
        stream.finish()
