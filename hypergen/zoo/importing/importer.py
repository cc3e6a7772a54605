"""`import_zoo`: reads every file once to plan, then again, a part at a time, to write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hypergen import __version__
from hypergen._utils.errors import UsageError
from hypergen._utils.progress import progress
from hypergen.zoo.importing.mapping import read_mapping
from hypergen.zoo.importing.plan import Plan, Planned
from hypergen.zoo.importing.report import Entry, ImportReport
from hypergen.zoo.importing.sources import KINDS, Found, Kind, find
from hypergen.zoo.store import Block, Header, Zoo, ZooWriter
from hypergen.zoo.store.paths import ZOO_FILE, part_numbers

PART_BYTES = 128 << 20


def import_zoo(
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    kind: Kind = "auto",
    mapping: str | Path | None = None,
    name: str | None = None,
    licence: str | None = None,
    strict: bool = False,
    part_bytes: int = PART_BYTES,
) -> ImportReport:
    """Makes a zoo of checkpoints that exist, or adds them to one.

    PEFT LoRAs of one base and one set of modules share an architecture, whatever their ranks: they
    are padded with zeros to the largest one (`Row.ranks` keeps the true ones, see `rank_mask`), and
    each one's scaling goes into its B, so that all have the scaling 1. Adapters of other PEFT
    methods share one where their configurations and shapes agree, whole networks (`.safetensors`,
    `.pt`, `.pth`, `.ckpt`) where names and shapes do. What the zoo has already is left alone;
    checkpoints with NaN or infinity are put into quarantine; whatever cannot be taken is skipped
    and listed with the reason. Nothing is unpickled beyond plain tensors, numbers and containers.

    Args:
        sources: Folders, files, and `.txt` files that list hub names (`owner/name[@revision]`).
        out: The zoo's folder, new or made by an earlier import.
        kind: `"peft"`, `"state_dict"` or `"lightning"` to look for that alone.
        mapping: File with metadata, see `hypergen.zoo.importing.mapping.read_mapping`.
        name: Name of the zoo; that of its folder when not given.
        licence: Licence of the weights.
        strict: Whether any skipped file or unused rule is an error, before anything is written.
        part_bytes: Weights gathered and written at a time (one checkpoint at least); about three
            times as much memory is used.

    Returns:
        What became of each file.

    Raises:
        UsageError: A source or option is wrong, the sources hold nothing, `strict` found something,
            or the folder holds another kind of zoo.
        RunError: The zoo is damaged, a download failed, or a file changed meanwhile.
    """
    if kind not in KINDS:
        raise UsageError(f"kind is {', '.join(KINDS)}, not {kind!r}")
    given = [sources] if isinstance(sources, (str, Path)) else list(sources)
    out = Path(out)
    old = Zoo(out, verify="never") if (out / ZOO_FILE).exists() else None
    parts = set(part_numbers(out)) if old is not None else set()
    header = _header(old, out, name, licence)
    plan = Plan(out, old, read_mapping(mapping))
    found = list(find(given, kind, out.resolve()))
    if not any(isinstance(item, Found) for item in found):
        plan.report.entries = [item for item in found if isinstance(item, Entry)]
        raise UsageError(_nothing(given, plan.report))
    for item in progress(found, desc="reading", unit="file"):
        plan.add(item, kind)
    plan.finish()
    if strict:
        _check_strict(plan.report)
    if plan.rows:
        header = replace(header, tasks=plan.tasks, architectures=plan.architectures)
        _write(out, header, plan, parts, part_bytes)
    return plan.report


def _header(old: Zoo | None, out: Path, name: str | None, licence: str | None) -> Header:
    if old is None:
        made = {"made_by": "hypergen zoo import", "hypergen": __version__}
        return Header(name or out.resolve().name, licence or "", provenance=made)
    if old.header.parts is not None:
        raise UsageError(
            f"{out} holds a zoo that was built by a recipe: import into another folder"
        )
    for option, ours, theirs in (
        ("name", name, old.header.name),
        ("licence", licence, old.header.licence),
    ):
        if ours is not None and ours != theirs:
            raise UsageError(f"the zoo at {out} has the {option} {theirs!r} already, not {ours!r}")
    return old.header


def _nothing(sources: Sequence[str | Path], report: ImportReport) -> str:
    skipped = report.of("skipped")
    first = f": {skipped[0].path}: {skipped[0].reason}" if skipped else ""
    return (
        f"{', '.join(map(str, sources))} holds no PEFT adapter, .safetensors, .pt, .pth or .ckpt "
        f"file that can be read ({len(skipped)} files skipped{first})"
    )


def _check_strict(report: ImportReport) -> None:
    skipped = [f"{entry.path}: {entry.reason}" for entry in report.of("skipped")]
    wrong = skipped + [f"{label}: fits no checkpoint" for label in report.unmatched]
    if wrong:
        raise UsageError(
            f"strict: {len(wrong)} of the files or rules cannot be used; nothing was written. "
            + "; ".join(wrong[:5])
            + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        )


def _write(out: Path, header: Header, plan: Plan, parts: set[int], part_bytes: int) -> None:
    with (
        ZooWriter(out, header) as writer,
        progress(total=len(plan.rows), desc="writing", unit="checkpoint") as bar,
    ):
        if writer.done != parts:
            raise UsageError(f"another job wrote to {out} meanwhile: run the same command again")
        for key, architecture in plan.architectures.items():
            members = [p for p in plan.rows if p.row.architecture == key]
            spec = architecture.spec
            count = max(1, part_bytes // (spec.numel * spec.dtype.itemsize))
            for first in range(0, len(members), count):
                chunk = members[first : first + count]
                _write_part(writer, plan, key, chunk, bar.update)


def _write_part(
    writer: ZooWriter,
    plan: Plan,
    key: str,
    chunk: list[Planned],
    advance: Callable[[int], object],
) -> None:
    spec = plan.architectures[key].spec
    flat = torch.empty(len(chunk), spec.numel, dtype=spec.dtype)
    for values, planned in zip(flat, chunk, strict=True):
        values.copy_(spec.pack(planned.checkpoint.tensors(spec)))
        advance(1)
    writer.append([Block(key, flat, [planned.row for planned in chunk])])
    for i in (~torch.isfinite(flat).all(1)).nonzero().flatten().tolist():
        plan.update(chunk[i], status="quarantined", reason="it holds NaN or infinity")
