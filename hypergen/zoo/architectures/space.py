"""ArchitectureSpace: endless architectures by number, and unseen ones to test on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

from hypergen._utils.errors import RunError, UsageError, did_you_mean
from hypergen._utils.seeding import stable_seed
from hypergen.zoo.architectures.base import Architecture, Signature, count_parameters
from hypergen.zoo.architectures.families import FAMILIES, NORMALISED, TOKENS, Limits
from hypergen.zoo.architectures.functional import skeleton

SPLITS = ("train", "val", "test", "wide", "deep", "dense", "norm_free")
_TRIES = 2000  # of a draw within the budget
_PARTS = 20  # one in so many architectures is for the test, one for validation


@dataclass(frozen=True)
class ArchitectureSpace:
    """A distribution of architectures, as code: nothing is stored.

    The architecture of a split and a number is a function of these and `seed` alone. Which split
    may hold an architecture is decided by a hash of it: one in twenty is for testing, one for
    validation, so that no architecture is in two splits, whatever is drawn. The splits are those
    of DeepNets-1M (Knyazev et al., NeurIPS 2021, arXiv:2110.13100): `test` is drawn as `train` is;
    `wide` and `deep` are wider and deeper than any architecture of it; the cells of `dense` have
    more steps and edges; `norm_free` have no normalisation.

    Args:
        families: Name → how often it is drawn, relative to the others: cells, resnet, convnext,
            vit, mlp for images, gpt, llama for tokens.
        width: Least and most channels at the start of a convnet; half the width of transformers, a
            quarter of perceptrons'.
        depth: Least and most cells, blocks or hidden layers.
        norm_free: Share of training architectures of cells and residual networks that have no
            normalisation; that of DeepNets-1M when not given.
        max_parameters: Most parameters of an architecture; eight times as many where it is wide,
            deep or dense.
        seed: Seed of all draws.

    Raises:
        UsageError: An unknown family, or a range or share that is none.
    """

    families: dict[str, float] = field(default_factory=lambda: {"cells": 1.0})
    width: tuple[int, int] = (8, 32)
    depth: tuple[int, int] = (2, 6)
    norm_free: float = 0.035
    max_parameters: int = 1_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, share in self.families.items():
            if name not in FAMILIES:
                raise UsageError(f"unknown family {name!r}.{did_you_mean(name, FAMILIES)}")
            if not share >= 0:
                raise UsageError(f"the share of {name} is {share}, below 0")
        if not any(share > 0 for share in self.families.values()):
            raise UsageError("a space of architectures needs a family with a share above 0")
        for name, pair in (("width", self.width), ("depth", self.depth)):
            if len(pair) != 2 or not 1 <= pair[0] <= pair[1]:
                raise UsageError(f"{name} is a range of two numbers from 1 up, not {list(pair)}")
            object.__setattr__(self, name, tuple(pair))
        if not 0 <= self.norm_free <= 1:
            raise UsageError(f"norm_free is a share in 0…1, not {self.norm_free}")
        if self.max_parameters < 1:
            raise UsageError(f"max_parameters must be positive, not {self.max_parameters}")

    def __hash__(self) -> int:
        parts = (tuple(sorted(self.families.items())), self.width, self.depth, self.norm_free)
        return hash((parts, self.max_parameters, self.seed))

    def to_dict(self) -> dict[str, Any]:
        """JSON form: the arguments."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ArchitectureSpace:
        """Rebuilds a space.

        Raises:
            RunError: It is not one.
        """
        try:
            return ArchitectureSpace(**data)
        except TypeError as error:
            raise RunError(f"not a space of architectures: {error}") from error

    def splits(self, signature: Signature) -> list[str]:
        """The splits that the space has: `dense` needs cells, `norm_free` what normalises."""
        return [split for split in SPLITS if self._families(split, signature)]

    def draw(self, signature: Signature, split: str = "train", number: int = 0) -> Architecture:
        """The architecture of a number.

        Args:
            signature: What it reads and puts out.
            split: One of `SPLITS`.
            number: Any whole number from 0; two may give equal architectures.

        Raises:
            UsageError: An unknown split, or none within `max_parameters` is found.
        """
        if split not in SPLITS:
            raise UsageError(f"unknown split {split!r}.{did_you_mean(split, SPLITS)}")
        families = self._families(split, signature)
        if not families:
            raise UsageError(
                f"no family of {', '.join(self.families)} has a split {split!r} for "
                f"{signature.kind}"
            )
        limits, most = self._limits(split)
        random_ = random.Random(stable_seed("architecture", self.seed, split, number))
        smallest: int | None = None
        for _ in range(_TRIES):
            (name,) = random_.choices(list(families), list(families.values()))
            found = FAMILIES[name](random_, signature, limits)
            if _part(found) != _part_of(split):
                continue
            count = size_of(found)
            if count <= most:
                return found
            smallest = min(count, smallest or count)
        raise UsageError(
            f"no architecture of the split {split!r} has at most {most:,} parameters "
            f"(the smallest of those drawn has {smallest or 0:,}): raise max_parameters, or lower "
            "width or depth"
        )

    def distinct(self, signature: Signature, split: str, count: int) -> list[Architecture]:
        """The first `count` different architectures of a split.

        Raises:
            UsageError: The split does not exist, or has fewer.
        """
        found: dict[Architecture, None] = {}
        for number in range(50 * count):
            if len(found) == count:
                break
            found.setdefault(self.draw(signature, split, number))
        if len(found) < count:
            raise UsageError(
                f"{50 * count} draws of the split {split!r} gave {len(found)} different "
                f"architectures, not {count}: ask for fewer, or widen the space"
            )
        return list(found)

    def stream(
        self, signature: Signature, split: str = "train", start: int = 0, step: int = 1
    ) -> Iterator[Architecture]:
        """Endless architectures of a split: every `step`-th number from `start` on."""
        number = start
        while True:
            yield self.draw(signature, split, number)
            number += step

    def only(self, families: Iterable[str]) -> ArchitectureSpace:
        """The same space with some of its families."""
        kept = set(families)
        return replace(self, families={n: s for n, s in self.families.items() if n in kept})

    def _families(self, split: str, signature: Signature) -> dict[str, float]:
        tokens = signature.kind == "tokens"
        kept = {n: s for n, s in self.families.items() if s > 0 and (n in TOKENS) == tokens}
        if split == "dense":
            kept = {n: s for n, s in kept.items() if n == "cells"}
        if split == "norm_free":
            kept = {n: s for n, s in kept.items() if n in NORMALISED}
        return kept

    def _limits(self, split: str) -> tuple[Limits, int]:
        # A thousand to draw from, so that limits stay plain values.
        free = round(1000 * self.norm_free)
        limits = Limits(self.width, self.depth, norm=("batch",) * (1000 - free) + (None,) * free)
        if split == "wide":
            top = self.width[1]
            return replace(limits, width=(top + 4, 3 * top)), 8 * self.max_parameters
        if split == "deep":
            top = self.depth[1]
            return replace(limits, depth=(top + 1, 2 * top)), 8 * self.max_parameters
        if split == "dense":
            return replace(limits, steps=(4, 6), edges=(2, 4)), 8 * self.max_parameters
        if split == "norm_free":
            return replace(limits, norm=(None,)), self.max_parameters
        return limits, self.max_parameters


@lru_cache(maxsize=4096)
def size_of(architecture: Architecture) -> int:
    """Numbers that an architecture's module holds."""
    return count_parameters(skeleton(architecture)[0])


def _part(architecture: Architecture) -> str:
    return {0: "test", 1: "val"}.get(architecture.digest % _PARTS, "train")


def _part_of(split: str) -> str:
    return split if split in ("train", "val") else "test"
