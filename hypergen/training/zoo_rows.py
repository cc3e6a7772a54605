"""The numbers of a zoo's splits as they are trained on: in canonical order, or in any order."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Literal

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen.specs import LoRASpec
from hypergen.zoo.canonical import (
    Symmetry,
    canonicalize,
    canonicalize_lora,
    pick_reference,
    symmetry_of,
)
from hypergen.zoo.reading import filter_metric, split
from hypergen.zoo.reading.augment import RandomPermutation
from hypergen.zoo.store import Row, Zoo

FEWEST = 50  # training runs below which generators that sample are warned of


def open_zoo(path: str, architecture: str | None) -> Zoo:
    """Opens the checkpoints of one architecture.

    Args:
        path: The folder.
        architecture: Key of the architecture; needed when the zoo has several.

    Raises:
        RunError: The zoo is missing or damaged.
        UsageError: There is no such architecture, or several and none is chosen.
    """
    zoo = Zoo(path)
    if architecture is not None or len(zoo.architectures) > 1:
        zoo = zoo.select(architecture=architecture)
        _ = zoo.spec  # says which architectures there are when none is chosen
    return zoo


def open_splits(
    path: str,
    *,
    architecture: str | None,
    step: Literal["last", "all"] | int,
    usable: Callable[[Zoo, Row], bool] | None,
    by: Literal["task", "family", "run"],
    fractions: Mapping[str, float],
    heldout: Collection[str] | None,
    metric: str | None,
    at_least: float | None,
    seed: int,
) -> dict[str, Zoo]:
    """Opens a zoo, and cuts it into views; the arguments are those of `ZooDataModule`.

    Args:
        path: The folder.
        architecture: Key of the architecture.
        step: Which checkpoints of a run.
        usable: Which rows can be used; all when not given.
        by: What the splits do not share.
        fractions: Shares of the splits.
        heldout: Names in the last split.
        metric: Metric of `at_least`.
        at_least: Training checkpoints below it are left out.
        seed: Seed of the splits.

    Raises:
        RunError: The zoo is missing or damaged.
        UsageError: No row is usable, or there are too few to split.
    """
    zoo = open_zoo(path, architecture)
    if step != "all":
        zoo = zoo.select(step=step)
    if usable is not None:
        kept = [i for i, row in enumerate(zoo.rows) if usable(zoo, row)]
        if not kept:
            raise UsageError(f"{path} has no checkpoint whose task has a description")
        zoo = zoo[kept]
    parts = split(zoo, by, fractions, seed, heldout)
    if at_least is not None and metric is not None:
        parts["train"] = filter_metric(parts["train"], metric, at_least=at_least)
    return parts


class ZooRows:
    """Rows of the splits, read from the mapped files unless they are canonical.

    Args:
        splits: Views of one zoo; `train` is one of them.
        canonical: Bring the hidden units of every network to the order that fits a typical
            training network (LoRAs to the balanced decomposition of their updates); once, in
            memory. Validation and test networks follow the same reference.
        augment: Offer random exact permutations of hidden units (`permuted`).

    Raises:
        UsageError: Both, or nothing is known about the symmetry of the architecture.
    """

    def __init__(self, splits: Mapping[str, Zoo], canonical: bool, augment: bool) -> None:
        if canonical and augment:
            raise UsageError("canonical brings units to one order, augment to any: choose one")
        self.splits, self.canonical, self.augment = splits, canonical, augment
        self._made: dict[str, Tensor] = {}
        self._warned = False
        self.symmetry: Symmetry | None = None
        zoo = splits["train"]
        if augment or (canonical and not isinstance(zoo.spec, LoRASpec)):
            self.symmetry = symmetry_of(zoo.spec, zoo.architecture.config)

    def flat(self, name: str, rows: Tensor | None = None) -> Tensor:
        """`[B, numel]`, rows of a split (all when not given)."""
        if not self.canonical:
            return self.splits[name].flat(rows)
        if name not in self._made:
            self._made[name] = self._canonical(name)
        own = self._made[name]
        return own if rows is None else own[rows]

    def _canonical(self, name: str) -> Tensor:
        zoo = self.splits[name]
        flat = zoo.flat()
        if self.symmetry is None:
            return canonicalize_lora(zoo.spec.from_flat(flat)).flat()
        if "reference" not in self._made:
            train = flat if name == "train" else self.splits["train"].flat()
            self._made["reference"] = train[pick_reference(train, self.symmetry)].clone()
        return canonicalize(flat, self.symmetry, self._made["reference"])

    def permuted(self, flat: Tensor, seeds: Tensor) -> Tensor:
        """Permutes the hidden units of each row by its own seed, `[B]`."""
        assert self.symmetry is not None
        return RandomPermutation(self.symmetry)(flat, seeds)

    def training(self) -> Tensor:
        """`[N, numel]`, all training checkpoints, each in some order of its units if augmented."""
        flat = self.flat("train")
        return self.permuted(flat, torch.arange(len(flat))) if self.augment else flat

    def warn(self) -> None:
        """Warns, once, of a zoo that is small or repeats itself."""
        if not self._warned:
            self._warned = True
            for concern in concerns(self.splits["train"], self.flat("train")):
                warnings.warn(concern, stacklevel=3)


def concerns(zoo: Zoo, flat: Tensor) -> list[str]:
    """What is wrong with a training set of generators that sample, in sentences with numbers.

    Args:
        zoo: The training split.
        flat: `[N, numel]`, its numbers.
    """
    out = []
    runs = len({row.run for row in zoo.rows})
    if runs < FEWEST:
        out.append(
            f"{zoo.folder} has {runs} independent training runs ({len(flat)} checkpoints); with "
            f"fewer than {FEWEST}, samples tend to be copies: add runs, or audit the samples"
        )
    # Digests: the rows themselves would be a second copy of the zoo.
    rows = flat.contiguous().cpu().numpy()
    distinct = len({hashlib.blake2b(row.data, digest_size=16).digest() for row in rows})
    if distinct < len(flat):
        out.append(
            f"{zoo.folder}: {len(flat) - distinct} of {len(flat)} training checkpoints are bit for "
            "bit equal to another one"
        )
    return out
