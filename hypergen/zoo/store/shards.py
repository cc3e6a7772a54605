"""Shards: safetensors files of flat rows, mapped into memory."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hypergen._utils.errors import RunError
from hypergen._utils.io import inside, save_safetensors

Verify = Literal["lazy", "open", "never"]

TENSOR = "weights"  # the one tensor of a shard, [rows, numel]

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_CHUNK = 1 << 22  # bytes hashed at a time


def write_shard(path: Path, weights: Tensor, architecture: str) -> dict[str, Any]:
    """Writes rows atomically.

    Args:
        path: The file.
        weights: `[rows, numel]`.
        architecture: Key of the architecture, for people who meet the file alone.

    Returns:
        What the manifest keeps of the file: `bytes` and `sha256`.
    """
    save_safetensors(path, {TENSOR: weights}, {"format": "pt", "architecture": architecture})
    return {"bytes": path.stat().st_size, "sha256": file_hash(path)}


def file_hash(path: Path) -> str:
    """SHA-256 of a whole file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def row_hashes(weights: Tensor) -> list[str]:
    """SHA-256 of the bytes of each row `[rows, numel]`."""
    data = weights.contiguous().view(torch.uint8).numpy()
    return [hashlib.sha256(row.data).hexdigest() for row in data]


class Shard:
    """One mapped file. Nothing is read before it is used, and nothing is copied.

    Args:
        path: The file.
        entry: What the manifest says of it: `bytes` and `sha256`.

    Raises:
        RunError: The file is missing, of another size, or not a shard.
    """

    def __init__(self, path: Path, entry: Mapping[str, Any]) -> None:
        self.path = path
        self._entry = entry
        try:
            size = path.stat().st_size
            if size != entry["bytes"]:
                raise RunError(
                    f"{path} is {size:,} bytes long, the manifest says {entry['bytes']:,}: it was "
                    "cut short or changed"
                )
            with path.open("rb") as file:
                # Private pages: torch asks for memory that could be written, the file never is.
                self.mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except FileNotFoundError:
            raise RunError(f"{path} is missing: the zoo is incomplete") from None
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}") from error
        dtype, shape, start = _header(path, self.mapped)
        count = math.prod(shape)
        flat = torch.frombuffer(self.mapped, dtype=dtype, count=count, offset=start)
        self.weights: Tensor = flat.view(shape)

    def verify(self) -> None:
        """Compares the file with the manifest's hash.

        Raises:
            RunError: A byte differs.
        """
        # Through the map, so that its pages are there for the reads that follow.
        if hashlib.sha256(self.mapped).hexdigest() != self._entry["sha256"]:
            raise RunError(
                f"{self.path} is damaged: its hash differs from the manifest's. Run "
                "`hypergen zoo verify` to see which checkpoints are hit"
            )


class Shards:
    """The shards of a zoo by name, mapped on first use, and anew in another process.

    Args:
        folder: The zoo.
        entries: What the manifest says of each.
        verify: When they are compared with their hashes, see `Zoo`.
    """

    def __init__(self, folder: Path, entries: dict[str, Any], verify: Verify) -> None:
        self._folder, self._entries, self._verify = folder, entries, verify
        self._open: dict[str, Shard] = {}
        self._checked: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._open:
            shard = Shard(inside(self._folder, name), self._entries[name])
            if self._verify != "never" and name not in self._checked:
                shard.verify()
                self._checked.add(name)
            self._open[name] = shard
        return self._open[name].weights

    def map_all(self) -> None:
        """Maps and checks every shard now."""
        for name in self._entries:
            self[name]

    def __getstate__(self) -> dict[str, Any]:
        # A worker maps the files anew, but need not hash again what was hashed here.
        return {**self.__dict__, "_open": {}}


def _header(path: Path, data: mmap.mmap) -> tuple[torch.dtype, tuple[int, int], int]:
    """Dtype, shape and position of the rows of a safetensors file."""
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        entry = header[TENSOR]
        dtype = _DTYPES[entry["dtype"]]
        rows, numel = entry["shape"]
        start, stop = entry["data_offsets"]
        fits = stop - start == rows * numel * dtype.itemsize
        if set(header) - {"__metadata__"} != {TENSOR} or not fits or 8 + size + stop > len(data):
            raise ValueError("sizes do not agree")
        if rows < 1 or numel < 1 or start < 0:
            raise ValueError("it is empty")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise RunError(f"{path} is not a shard of a zoo: {error!r}") from error
    return dtype, (rows, numel), 8 + size + start


def available_bytes(folder: Path) -> int:
    """Bytes that may still be written to the disk of a folder."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize
