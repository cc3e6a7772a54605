"""A checkpoint on its way into a zoo, whatever its file format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from hypergen._utils.errors import RunError
from hypergen.specs import WeightSpec
from hypergen.zoo.importing.sources import Found
from hypergen.zoo.importing.tensors import Layout, digest, widest
from hypergen.zoo.store.records import Architecture

Self = TypeVar("Self", bound="Checkpoint")


@dataclass(frozen=True)
class Facts:
    """What a file itself says of its checkpoint.

    Attributes:
        step: Optimiser steps taken.
        one_run: Whether the checkpoints of its folder are one run.
        parent: Base model.
        hyperparameters: JSON-serialisable.
        metadata: JSON-serialisable.
    """

    step: int | None = None
    one_run: bool = False
    parent: str = ""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint(ABC):
    """What one reading of a file tells; the numbers are read again when they are written.

    Attributes:
        found: The file.
        sha256: Hash of the file.
        digest: Hash of the numbers taken and of what they mean: equal for equal networks, however
            they are padded.
        layout: Names, shapes and dtypes of the tensors taken.
        left_out: What else the file holds.
        facts: What the file says.
    """

    found: Found
    sha256: str
    digest: str
    layout: Layout
    left_out: tuple[str, ...]
    facts: Facts

    @property
    @abstractmethod
    def group(self) -> Hashable:
        """Checkpoints of equal groups share one architecture."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Readable key for a new architecture."""

    @classmethod
    @abstractmethod
    def architecture(cls: type[Self], members: Sequence[Self]) -> Architecture:
        """Makes the architecture of a group."""

    @abstractmethod
    def fits(self, architecture: Architecture) -> bool:
        """Whether an architecture that the zoo has can hold the checkpoint without loss."""

    @property
    def ranks(self) -> dict[str, int] | None:
        """Module → rank, for LoRA."""
        return None

    @property
    def meaning(self) -> str:
        """What decides what the numbers do, besides themselves."""
        return ""

    @abstractmethod
    def read(self) -> dict[str, Tensor]:
        """Reads the file again: the tensors of the layout."""

    def tensors(self, spec: WeightSpec) -> dict[str, Tensor]:
        """The numbers in the shapes of a spec.

        Raises:
            RunError: The file has changed since it was first read.
        """
        values = self.read()
        if digest(values, self.meaning) != self.digest:
            raise RunError(f"{self.found.file} was changed while it was being imported; run again")
        return self.shaped(values, spec)

    def shaped(self, values: dict[str, Tensor], spec: WeightSpec) -> dict[str, Tensor]:
        """Brings the tensors into the shapes of a spec that they fit."""
        return values


def common_layout(members: Sequence[Checkpoint]) -> Layout:
    """The layout of checkpoints of equal names and shapes, each dtype wide enough for all."""
    dtypes = [
        widest(*sorted(set(column)))
        for column in zip(
            *({m.layout: [d for _, _, d in m.layout] for m in members}.values()), strict=True
        )
    ]
    return tuple(
        (name, shape, dtype)
        for (name, shape, _), dtype in zip(members[0].layout, dtypes, strict=True)
    )


def same_shapes(layout: Layout, spec: WeightSpec) -> bool:
    """Whether the tensors are the spec's slots, and lose nothing in their dtypes."""
    return len(layout) == len(spec) and all(
        name in spec
        and spec[name].shape == shape
        and widest(spec[name].dtype, dtype) == spec[name].dtype
        for name, shape, dtype in layout
    )
