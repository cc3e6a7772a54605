"""What an import will write, found by reading every file once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen.zoo.importing.adapters import read_config
from hypergen.zoo.importing.checkpoint import Checkpoint
from hypergen.zoo.importing.lora import read_adapter
from hypergen.zoo.importing.mapping import MetadataMap
from hypergen.zoo.importing.naming import run_and_step, seed_of
from hypergen.zoo.importing.report import Entry, ImportReport, SkipFile
from hypergen.zoo.importing.sources import Found, Kind
from hypergen.zoo.importing.states import read_state
from hypergen.zoo.store import Architecture, Row, Task, Zoo

# Key of `Row.metadata`: the hash by which a later import knows the checkpoint.
_DIGEST = "content_sha256"


@dataclass
class Planned:
    """A row that will be written: its place in the report, and where its numbers are."""

    entry: int
    checkpoint: Checkpoint
    row: Row


class Plan:
    """What is to be written, found by reading every file once.

    Attributes:
        report: The report, complete but for what writing finds.
        rows: What is to be written, in order of the sources.
        tasks: Task table, with the zoo's own where they are used.
        architectures: All those of the zoo, old and new.
    """

    def __init__(self, out: Path, old: Zoo | None, mapping: MetadataMap) -> None:
        self.report = ImportReport(out)
        self.rows: list[Planned] = []
        self.tasks: dict[str, Task] = {}
        self.architectures: dict[str, Architecture] = {}
        self._mapping = mapping
        self._used: set[str] = set()
        self._present: dict[str, Row] = {}
        self._places: dict[tuple[str, int], str] = {}
        self._digests: dict[str, str] = {}
        self._old_tasks: dict[str, Task] = {}
        if old is not None:
            self.architectures = dict(old.header.architectures)
            self._old_tasks = dict(old.header.tasks)
            for row in (*old.rows, *old.quarantined):
                self._places[row.run, row.step] = "the zoo"
                if _DIGEST in row.metadata:
                    self._present[row.metadata[_DIGEST]] = row

    def add(self, item: Found | Entry, kind: Kind) -> None:
        """Reads a file and adds what becomes of it to the report."""
        if isinstance(item, Entry):
            self.report.entries.append(item)
            return
        try:
            self.report.entries.append(self._taken(item, kind))
        except SkipFile as reason:
            self.report.entries.append(Entry(item.path, "skipped", str(reason)))

    def _taken(self, item: Found, kind: Kind) -> Entry:
        values = self._mapping.lookup(_names(item), self._used)
        if item.adapter:
            checkpoint: Checkpoint = read_adapter(item, read_config(item))
        else:
            checkpoint = read_state(item, kind, values.get("network"))
        present = self._present.get(checkpoint.digest)
        if present is not None:
            reason = f"it has the numbers of {present.label} of the zoo"
            return Entry(
                item.path, "known", reason, present.run, present.step, present.architecture
            )
        if checkpoint.digest in self._digests:
            raise SkipFile(f"a duplicate: it has the numbers of {self._digests[checkpoint.digest]}")
        row = _row(checkpoint, values)
        if (row.run, row.step) in self._places:
            raise SkipFile(
                f"{row.label} is taken by {self._places[row.run, row.step]}, which has other "
                "numbers: give it another run or step in a mapping file"
            )
        self._add_task(item.path, values)
        self._digests[checkpoint.digest] = item.path
        self._places[row.run, row.step] = item.path
        self.rows.append(Planned(len(self.report.entries), checkpoint, row))
        return Entry(item.path, "taken", "", row.run, row.step, "", checkpoint.left_out)

    def _add_task(self, path: str, values: dict[str, Any]) -> None:
        """Adds a task to the table; the mapping file, its rules and the zoo must agree on it."""
        name, words, family = values.get("task", ""), values.get("descriptions"), ""
        family = values.get("family", "")
        if not name:
            if words or family:
                raise UsageError(f"{path}: the mapping file gives it descriptions but no task")
            return
        known = self.tasks.get(name) or self._mapping.tasks.get(name) or Task()
        if family and known.family and family != known.family:
            raise UsageError(
                f"{path}: the task {name!r} is of the families {known.family!r} and {family!r}"
            )
        merged = tuple(dict.fromkeys((*known.descriptions, *(words or ()))))
        self.tasks[name] = replace(known, descriptions=merged, family=family or known.family)

    def finish(self) -> None:
        """Gives every row its architecture and lists rules that fitted nothing."""
        for name, task in self.tasks.items():
            if task == Task() and name in self._old_tasks:
                self.tasks[name] = self._old_tasks[name]
        groups: dict[Hashable, list[Planned]] = {}
        for planned in self.rows:
            group = (type(planned.checkpoint).__name__, planned.checkpoint.group)
            groups.setdefault(group, []).append(planned)
        for members in groups.values():
            left = members
            for key, architecture in self.architectures.items():
                fitting = [p for p in left if p.checkpoint.fits(architecture)]
                self._place(fitting, key)
                left = [p for p in left if p.row.architecture == ""]
            if left:
                checkpoints = [p.checkpoint for p in left]
                key = self._new_key(checkpoints[0].key)
                self.architectures[key] = type(checkpoints[0]).architecture(checkpoints)
                self._place(left, key)
        labels = [rule.label for rule in self._mapping.rules]
        self.report.unmatched = [label for label in labels if label not in self._used]

    def _place(self, rows: list[Planned], key: str) -> None:
        for planned in rows:
            planned.row = replace(planned.row, architecture=key)
            self.update(planned, architecture=key)

    def update(self, planned: Planned, **changes: Any) -> None:
        """Changes the entry of a row."""
        entries = self.report.entries
        entries[planned.entry] = replace(entries[planned.entry], **changes)

    def _new_key(self, wanted: str) -> str:
        key, number = wanted, 2
        while key in self.architectures:
            key, number = f"{wanted}-{number}", number + 1
        return key


def _names(item: Found) -> Iterator[str]:
    """Paths by which a rule may mean a checkpoint: an adapter is its folder and its file."""
    yield item.path
    if item.adapter:
        yield f"{item.path}/{item.file.name}"


def _row(checkpoint: Checkpoint, values: dict[str, Any]) -> Row:
    item, facts = checkpoint.found, checkpoint.facts
    stem = item.path if item.adapter else item.path[: -len(item.file.suffix)]
    run, step = run_and_step(stem, item.home, facts.step, facts.one_run)
    return Row(
        run=values.get("run", run),
        step=values.get("step", step),
        architecture="",
        task=values.get("task", ""),
        seed=values.get("seed", seed_of(stem)),
        hyperparameters={**facts.hyperparameters, **values.get("hyperparameters", {})},
        metrics=values.get("metrics", {}),
        parent=values.get("parent", facts.parent),
        ranks=checkpoint.ranks,
        metadata={
            **facts.metadata,
            **item.origin,
            "source": f"{item.path}/{item.file.name}" if item.adapter else item.path,
            "source_sha256": checkpoint.sha256,
            _DIGEST: checkpoint.digest,
        },
    )
