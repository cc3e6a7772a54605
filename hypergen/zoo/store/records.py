"""What a zoo says about itself: header, architectures, tasks and one row for each checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from hypergen._utils.errors import RunError, UsageError
from hypergen.specs import WeightSpec

FORMAT = "hypergen-zoo"
FORMAT_VERSION = 1

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Architecture:
    """One kind of network in a zoo.

    Attributes:
        spec: What a row of numbers means.
        config: What rebuilds the network: `Network.to_dict()`, a PEFT configuration with its base
            model, or empty when it is not known.
    """

    spec: WeightSpec
    config: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {"spec": self.spec.to_dict(), "config": self.config}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Architecture:
        """Rebuilds an architecture from `to_dict`."""
        return Architecture(WeightSpec.from_dict(data["spec"]), dict(data["config"]))


@dataclass(frozen=True)
class Task:
    """One row of the task table.

    Attributes:
        descriptions: Sentences, each of which says the whole task.
        family: Tasks of one family never straddle two splits; every task is its own family when
            empty.
        metadata: Anything else, JSON-serialisable (labels, source, …).
    """

    descriptions: tuple[str, ...] = ()
    family: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Task:
        """Rebuilds a task from `to_dict`."""
        return Task(tuple(data["descriptions"]), data["family"], dict(data["metadata"]))


@dataclass(frozen=True)
class Header:
    """What `zoo.json` holds.

    Attributes:
        name: Name of the zoo.
        licence: Licence of the weights, an SPDX identifier if there is one.
        tasks: Task table, by name.
        architectures: Kinds of network, by key (letters, digits, `.`, `_`, `-`).
        provenance: What made the zoo: recipe, version of the package, sources of the data.
        parts: How many parts the complete zoo has; None when it may always grow.

    Raises:
        UsageError: A key of an architecture cannot be part of a file name.
    """

    name: str
    licence: str = ""
    tasks: dict[str, Task] = field(default_factory=dict)
    architectures: dict[str, Architecture] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    parts: int | None = None

    def __post_init__(self) -> None:
        for key in self.architectures:
            if not _KEY.fullmatch(key):
                raise UsageError(
                    f"the architecture key {key!r} cannot name files: use letters, digits, "
                    "'.', '_' and '-'"
                )

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form, with format and version."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "licence": self.licence,
            "tasks": {name: task.to_dict() for name, task in self.tasks.items()},
            "architectures": {key: a.to_dict() for key, a in self.architectures.items()},
            "provenance": self.provenance,
            "parts": self.parts,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Header:
        """Rebuilds a header from `to_dict`.

        Raises:
            RunError: Another format or version, or a field is missing or malformed.
        """
        if data.get("format") != FORMAT or data.get("format_version") != FORMAT_VERSION:
            raise RunError(
                f"format {data.get('format')!r} version {data.get('format_version')!r}; this "
                f"hypergen reads {FORMAT!r} version {FORMAT_VERSION}"
            )
        try:
            return Header(
                name=data["name"],
                licence=data["licence"],
                tasks={name: Task.from_dict(task) for name, task in data["tasks"].items()},
                architectures={
                    key: Architecture.from_dict(a) for key, a in data["architectures"].items()
                },
                provenance=dict(data["provenance"]),
                parts=data["parts"],
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RunError(f"the header is malformed: {error!r}") from error

    def merged(self, other: Header) -> Header:
        """This header with the tasks and architectures of another added.

        Raises:
            UsageError: The two define one task or architecture differently; names it.
        """
        for kind in ("tasks", "architectures"):
            ours, theirs = getattr(self, kind), getattr(other, kind)
            for key in theirs:
                if key in ours and ours[key] != theirs[key]:
                    raise UsageError(
                        f"the zoo {self.name!r} has other {kind} named {key!r} already: rename one"
                    )
        return replace(
            self,
            tasks={**self.tasks, **other.tasks},
            architectures={**self.architectures, **other.architectures},
        )


@dataclass(frozen=True)
class Row:
    """One checkpoint.

    Attributes:
        run: Training run it comes from; checkpoints of a run share data, start and seed.
        step: Optimiser steps taken.
        architecture: Key in the header.
        task: Name in the task table; empty when there is none.
        seed: Seed of the run.
        hyperparameters: Learning rate and the like, JSON-serialisable.
        metrics: Split → name → value, such as `{"test": {"accuracy": 0.93}}`.
        parent: Base model, or run that this one started from.
        ranks: Module → true rank, where LoRA matrices were padded with zeros.
        metadata: Anything else, JSON-serialisable.
        shard: File that holds the numbers, relative to the zoo; set by the store.
        index: Row of that file; set by the store.
        sha256: Hash of the numbers, little-endian; set by the store.
        quarantined: Why the checkpoint is kept apart; empty for a good one; set by the store.
    """

    run: str
    step: int
    architecture: str
    task: str = ""
    seed: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    parent: str = ""
    ranks: dict[str, int] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    shard: str = ""
    index: int = 0
    sha256: str = ""
    quarantined: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Row:
        """Rebuilds a row from `to_dict`.

        Raises:
            RunError: A field is missing, unknown or of the wrong type.
        """
        try:
            row = Row(**data)
        except TypeError as error:
            raise RunError(f"a row of the manifest is malformed: {error}") from error
        for key, kind in (("run", str), ("step", int), ("index", int), ("shard", str)):
            if not isinstance(getattr(row, key), kind):
                raise RunError(f"a row of the manifest is malformed: {key!r} is no {kind.__name__}")
        return row

    @property
    def label(self) -> str:
        """Words for messages: run and step."""
        return f"run {self.run!r}, step {self.step}"
