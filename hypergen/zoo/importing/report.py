"""What an import did with each file, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["taken", "quarantined", "known", "skipped", "ignored"]

STATUSES: dict[Status, str] = {
    "taken": "written to the zoo",
    "quarantined": "written apart: NaN or infinity",
    "known": "in the zoo already, with the same numbers",
    "skipped": "not written",
    "ignored": "files that hold no weights",
}
_SHOWN = 20  # lines a status before the text sends to --json


class SkipFile(Exception):
    """A file cannot be taken; the message is the reason that the report gives."""


@dataclass(frozen=True)
class Entry:
    """One file (or adapter folder) of the sources.

    Attributes:
        path: Where it lies, relative to the folder that was given.
        status: What became of it.
        reason: Why it was not simply taken.
        run: Run of its row in the zoo.
        step: Step of its row in the zoo.
        architecture: Architecture of its row in the zoo.
        left_out: Tensors and other values of the file that no slot holds, each with its type.
    """

    path: str
    status: Status
    reason: str = ""
    run: str = ""
    step: int | None = None
    architecture: str = ""
    left_out: tuple[str, ...] = ()


@dataclass
class ImportReport:
    """What was taken, skipped and quarantined, and why.

    Attributes:
        zoo: The zoo's folder.
        entries: One for each file or adapter folder found, in order of their paths.
        unmatched: Rules of the mapping file that fitted no checkpoint.
    """

    zoo: Path
    entries: list[Entry] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)

    def of(self, *statuses: Status) -> list[Entry]:
        """The entries with one of some statuses."""
        return [entry for entry in self.entries if entry.status in statuses]

    @property
    def counts(self) -> dict[Status, int]:
        """Number of entries of each status."""
        found = Counter(entry.status for entry in self.entries)
        return {status: found[status] for status in STATUSES}

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {
            "zoo": str(self.zoo),
            "counts": self.counts,
            "architectures": _counted(e.architecture for e in self.of("taken", "quarantined")),
            "reasons": _counted(entry.reason for entry in self.of("skipped")),
            "unmatched_rules": self.unmatched,
            "entries": [asdict(entry) for entry in self.entries],
        }

    def __str__(self) -> str:
        lines = [
            f"{status:<12}{self.counts[status]:>7,}  {STATUSES[status]}" for status in STATUSES
        ]
        architectures = _counted(e.architecture for e in self.of("taken", "quarantined"))
        if architectures:
            lines += ["", f"{'architecture':<44}{'checkpoints':>12}"]
            lines += [f"{name:<44}{count:>12,}" for name, count in architectures.items()]
        for status in ("quarantined", "skipped"):
            lines += _listed(status, [f"{e.path}: {e.reason}" for e in self.of(status)])
        partly = [e for e in self.of("taken", "quarantined") if e.left_out]
        # Networks of one kind leave out the same values: said once.
        kinds = _counted(", ".join(entry.left_out) for entry in partly)
        lines += _listed("left out", [f"{what} ({n} checkpoints)" for what, n in kinds.items()])
        lines += _listed("rules that fit nothing", self.unmatched)
        return "\n".join(lines)


def _counted(words: Any) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    shown = [f"  {line}" for line in lines[:_SHOWN]]
    rest = len(lines) - len(shown)
    more = [f"  … and {rest:,} more; --json lists them all"] if rest else []
    return ["", f"{title}:", *shown, *more]
