"""Writing a zoo: part by part, each whole or not at all."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from hypergen._utils.errors import RunError, UsageError, WeightsError, did_you_mean
from hypergen._utils.io import dump_json, write_text
from hypergen.zoo.store.paths import LOCK, ZOO_FILE, part_numbers, part_path, shard_name
from hypergen.zoo.store.records import Header, Row
from hypergen.zoo.store.seal import open_json, seal_json, seal_lines
from hypergen.zoo.store.shards import available_bytes, row_hashes, write_shard

SHARD_BYTES = 256 << 20


@dataclass
class Block:
    """Checkpoints of one architecture that are written together.

    Attributes:
        architecture: Key in the header.
        weights: `[N, numel]`, flat rows of the architecture's spec.
        rows: What the manifest says of each of them.
    """

    architecture: str
    weights: Tensor
    rows: list[Row]


class ZooWriter:
    """Makes a zoo, or goes on with one that was interrupted or may grow.

    A part is a number of shards and the list of their rows. It counts from the moment at which the
    list appears under its name, after the shards; whatever a killed job left behind is removed
    here. Part numbers are given, so that parts may be written in any order with equal results.

    Checkpoints with NaN or infinity are written too, but apart (`quarantine/`), and marked so.

    Args:
        folder: Where the zoo is or will be.
        header: What `zoo.json` is to say. A zoo with a fixed number of parts must have been begun
            with the same one; an open one takes its tasks and architectures in.

    Raises:
        UsageError: The folder holds something else or another zoo, or another job has it.
        RunError: The zoo that is there is damaged.
    """

    def __init__(self, folder: str | Path, header: Header) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder} is not a folder; choose another name")
        if self.folder.is_dir() and not (self.folder / ZOO_FILE).exists():
            # A writer that was killed at its very start leaves its lock and a temporary file.
            known = {LOCK, *(path.name for path in self.folder.glob(".*.tmp"))}
            if any(path.name not in known for path in self.folder.iterdir()):
                raise UsageError(
                    f"{self.folder} holds files but no zoo; choose another folder or remove it"
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"another job is writing to {self.folder}: wait for it, or choose another folder"
            ) from None
        try:
            self.header = self._begin(header)
            self._clean()
            self.done = set(part_numbers(self.folder))
        except BaseException:
            self._lock.release()
            raise

    def _begin(self, header: Header) -> Header:
        path = self.folder / ZOO_FILE
        header = Header.from_dict(json.loads(dump_json(header.to_dict())))  # as it is read back
        if path.exists():
            old = read_header(self.folder)
            before, after = old.to_dict(), header.to_dict()
            if old.parts is not None and before != after:
                difference = first_difference(before, after)
                raise UsageError(
                    f"{self.folder} holds a zoo of another recipe ({difference}): "
                    "choose another folder, or build with the recipe that it was begun with"
                )
            header = old if old.parts is not None else old.merged(header)
            if header == old:
                return old
        write_text(path, seal_json(header.to_dict()))
        return header

    def _clean(self) -> None:
        """Removes what a killed writer left behind; the lock says that no other one is at work."""
        for path in self.folder.rglob(".*.tmp"):
            path.unlink()

    # -- writing -------------------------------------------------------------------------------

    def write(self, part: int, blocks: Sequence[Block]) -> None:
        """Writes one part.

        Args:
            part: Its number; a part that is there already is replaced.
            blocks: What it holds; blocks of one architecture stay apart.

        Raises:
            UsageError: An unknown architecture or task, or a checkpoint that is given twice.
            WeightsError: A block's weights do not fit its rows or its spec.
            RunError: The disk is full; what was written before is complete.
        """
        if self.header.parts is not None and not 0 <= part < self.header.parts:
            raise UsageError(f"part {part} of a zoo of {self.header.parts} parts")
        self._check(blocks)
        rows: list[Row] = []
        shards: dict[str, Any] = {}
        try:
            for number, block in enumerate(blocks):
                self._write_block(part, number, block, rows, shards)
            head = {"part": part, "rows": len(rows), "shards": shards}
            # JSON has no NaN: the loss of a network that diverged becomes null.
            plain = json.loads(dump_json([row.to_dict() for row in rows], nonfinite="null"))
            write_text(part_path(self.folder, part), seal_lines(head, plain))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            wanted = sum(b.weights.numel() * b.weights.element_size() for b in blocks)
            raise RunError(
                f"the disk of {self.folder} is full: part {part} needs {wanted:,} bytes and "
                f"{available_bytes(self.folder):,} are free. The {len(self.done)} parts that were "
                "finished are safe; free some space and run the same command again"
            ) from error
        self.done.add(part)

    def append(self, blocks: Sequence[Block]) -> int:
        """Writes a new part after those that are there, and returns its number."""
        part = max(self.done, default=-1) + 1
        self.write(part, blocks)
        return part

    def _check(self, blocks: Sequence[Block]) -> None:
        seen: set[tuple[str, int]] = set()
        for block in blocks:
            known = self.header.architectures
            if block.architecture not in known:
                raise UsageError(
                    f"the zoo has no architecture {block.architecture!r}."
                    f"{did_you_mean(block.architecture, known)}"
                )
            numel = known[block.architecture].spec.numel
            expected = (len(block.rows), numel)
            if tuple(block.weights.shape) != expected or not block.rows:
                raise WeightsError(
                    f"a block of {block.architecture!r} has weights of shape "
                    f"{tuple(block.weights.shape)}, its rows and its spec ask for {expected}"
                )
            for row in block.rows:
                if row.task and row.task not in self.header.tasks:
                    raise UsageError(
                        f"{row.label} names the task {row.task!r}, which is not in the zoo's table"
                        f".{did_you_mean(row.task, self.header.tasks)}"
                    )
                if (row.run, row.step) in seen:
                    raise UsageError(f"{row.label} is given twice")
                seen.add((row.run, row.step))

    def _write_block(
        self, part: int, number: int, block: Block, rows: list[Row], shards: dict[str, Any]
    ) -> None:
        """Writes the shards of a block and adds to the part's rows and shards."""
        spec = self.header.architectures[block.architecture].spec
        weights = block.weights.detach().to("cpu", spec.dtype).contiguous()
        reasons = {int(i): "" for i in range(len(weights))}
        for i in (~torch.isfinite(weights).all(1)).nonzero().flatten().tolist():
            reasons[i] = _reason(spec.unpack(weights[i]))
        per_shard = max(1, SHARD_BYTES // (weights.shape[1] * weights.element_size()))
        # The numbers' own place follows the rows' order within good and quarantined ones.
        placed: dict[int, Row] = {}
        for apart in (False, True):
            chosen = [i for i, reason in reasons.items() if bool(reason) == apart]
            for count, first in enumerate(range(0, len(chosen), per_shard)):
                members = chosen[first : first + per_shard]
                name = shard_name(part, number, block.architecture, count, apart)
                # Good ones only, and in order: no copy of the block.
                whole = len(members) == len(weights)
                values = weights if whole else weights[torch.tensor(members)]
                shards[name] = write_shard(self.folder / name, values, block.architecture)
                hashes = row_hashes(values)
                for index, i in enumerate(members):
                    placed[i] = replace(
                        block.rows[i],
                        architecture=block.architecture,
                        shard=name,
                        index=index,
                        sha256=hashes[index],
                        quarantined=reasons[i],
                    )
        rows += [placed[i] for i in range(len(weights))]

    # -- end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Lets other jobs at the folder."""
        self._lock.release()

    def __enter__(self) -> ZooWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_header(folder: str | Path) -> Header:
    """Reads `zoo.json`.

    Raises:
        RunError: It is missing, damaged, or of another format; names the file.
    """
    path = Path(folder) / ZOO_FILE
    try:
        return Header.from_dict(open_json(path.read_bytes()))
    except FileNotFoundError:
        raise RunError(f"{folder} is not a zoo: it has no {ZOO_FILE}") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except RunError as error:
        raise RunError(f"{path}: {error}") from error


def _reason(tensors: dict[str, Tensor]) -> str:
    bad = next(name for name, tensor in tensors.items() if not torch.isfinite(tensor).all())
    return f"slot {bad!r} holds NaN or infinity"


def first_difference(there: Any, here: Any, path: str = "") -> str | None:
    """The first place where two trees of plain values differ, in words; None if they are equal."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in sorted({*there, *here}):
            inner = f"{path}.{key}" if path else str(key)
            found = first_difference(there.get(key), here.get(key), inner)
            if found is not None:
                return found
        return None
    if there == here:
        return None
    return f"{path or 'the recipe'} is {there!r} there and {here!r} here"
