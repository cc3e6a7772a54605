"""`hypergen zoo verify`: every byte of a zoo against its hashes."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hypergen._utils.errors import RunError
from hypergen._utils.io import inside
from hypergen._utils.progress import progress
from hypergen.zoo.store.manifest import read_part
from hypergen.zoo.store.paths import LOCK, MANIFEST, QUARANTINE, SHARDS, ZOO_FILE, part_numbers
from hypergen.zoo.store.records import Header, Row
from hypergen.zoo.store.shards import Shard, row_hashes
from hypergen.zoo.store.writer import read_header


@dataclass(frozen=True)
class Damage:
    """Something wrong with a zoo.

    Attributes:
        path: The file, relative to the zoo.
        what: What is wrong with it.
    """

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def verify_zoo(folder: str | Path) -> list[Damage]:
    """Reads a whole zoo and lists everything that is wrong with it.

    Found are flipped bytes in any file (with the checkpoints that they hit), cut or missing shards,
    missing parts, rows without weights, weights without rows, checkpoints that are there twice,
    NaN and infinity outside the quarantine, paths that leave the folder and foreign files.

    Args:
        folder: The zoo.

    Returns:
        The damages, none for a good zoo.

    Raises:
        RunError: The folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder")
    return list(_damages(folder))


def _damages(folder: Path) -> Iterator[Damage]:
    header: Header | None = None
    try:
        header = read_header(folder)
    except RunError as error:
        yield Damage(ZOO_FILE, _plain(error, folder / ZOO_FILE))
    numbers = part_numbers(folder)
    announced = header.parts if header is not None else None
    whole = range(announced if announced is not None else max(numbers, default=-1) + 1)
    for part in sorted(set(whole) - set(numbers)):
        yield Damage(
            f"{MANIFEST}/{part:06d}.jsonl",
            "the part is missing: the build was not finished (run it again) or the file is lost",
        )
    listed: set[str] = set()
    seen: dict[tuple[str, int], str] = {}
    for part in progress(numbers, desc="verifying", unit="part"):
        name = f"{MANIFEST}/{part:06d}.jsonl"
        try:
            rows, shards = read_part(folder, part)
        except RunError as error:
            yield Damage(name, _plain(error, folder / name))
            continue
        listed |= set(shards)
        for shard, entry in shards.items():
            members = [row for row in rows if row.shard == shard]
            yield from _check_shard(folder, shard, entry, members, header)
        for row in rows:
            yield from _check_row(name, row, header)
            key = (row.run, row.step)
            if key in seen:
                yield Damage(name, f"{row.label} is listed twice, also in {seen[key]}")
            seen[key] = name
    expected = {ZOO_FILE, LOCK} | listed | {f"{MANIFEST}/{part:06d}.jsonl" for part in numbers}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name in expected:
            continue
        if name.split("/")[0] in (SHARDS, QUARANTINE):
            yield Damage(name, "no part of the manifest lists this shard (an interrupted build?)")
        else:
            yield Damage(name, "this file does not belong to the zoo")


def _check_row(name: str, row: Row, header: Header | None) -> Iterator[Damage]:
    if header is None:
        return
    if row.architecture not in header.architectures:
        yield Damage(name, f"{row.label} has an unknown architecture {row.architecture!r}")
    if row.task and row.task not in header.tasks:
        yield Damage(name, f"{row.label} has an unknown task {row.task!r}")


def _check_shard(
    folder: Path, name: str, entry: dict[str, Any], rows: list[Row], header: Header | None
) -> Iterator[Damage]:
    try:
        shard = Shard(inside(folder, name), entry)
    except RunError as error:
        yield Damage(name, _plain(error, folder / name))
        return
    weights = shard.weights
    found = row_hashes(weights)
    hit = False
    claimed: set[int] = set()
    for row in rows:
        if not 0 <= row.index < len(found) or row.index in claimed:
            yield Damage(name, f"{row.label} has no weights of its own: row {row.index}")
            continue
        claimed.add(row.index)
        if found[row.index] != row.sha256:
            hit = True
            yield Damage(name, f"the numbers of {row.label} (row {row.index}) are damaged")
        finite = bool(torch.isfinite(weights[row.index]).all())
        if not finite and not row.quarantined:
            yield Damage(name, f"{row.label} holds NaN or infinity but is not quarantined")
        spec = header.architectures.get(row.architecture) if header is not None else None
        if spec is not None and spec.spec.numel != weights.shape[1]:
            yield Damage(
                name,
                f"{row.label} has {weights.shape[1]} numbers, its spec {spec.spec.numel}",
            )
    for index in sorted(set(range(len(found))) - claimed):
        yield Damage(name, f"row {index} holds weights that the manifest does not list")
    if not hit and hashlib.sha256(shard.mapped).hexdigest() != entry["sha256"]:
        yield Damage(name, "the file's header or padding is damaged; the numbers are intact")


def _plain(error: RunError, path: Path) -> str:
    """The message without the path at its beginning, which the damage names itself."""
    return str(error).removeprefix(f"{path}").removeprefix(": ").strip()


def verify_command(args: argparse.Namespace) -> dict[str, Any]:
    """`hypergen zoo verify DIR`: lists damages; the exit code is 1 if there is one."""
    damages = verify_zoo(args.zoo)
    if args.json is None:
        for damage in damages:
            print(damage)
        rows = "damaged" if damages else "intact: every byte has the hash that it was written with"
        print(f"{args.zoo}: {rows}")
    return {
        "zoo": str(args.zoo),
        "intact": not damages,
        "damages": [asdict(damage) for damage in damages],
        "exit_code": int(bool(damages)),
    }
