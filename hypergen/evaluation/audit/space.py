"""Distances between networks by matrix products, as they are or in a canonical form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen.evaluation.audit.records import Networks
from hypergen.specs import LoRASpec, WeightSpec
from hypergen.zoo.canonical import (
    ScalingGroup,
    Symmetry,
    align,
    balance_units,
    canonicalize,
    pick_reference,
    symmetry_of,
)
from hypergen.zoo.networks import Network

_NUMBERS = 1 << 23  # numbers in float64 that a step of the products holds
_CANDIDATES = 3  # networks that are matched once more, one by one
_STATISTICS = ("running_mean", "running_var")  # of batch norm: measured on data, not learned


class Space(ABC):
    """Where distances are taken.

    Networks are mapped once (`map`), then compared as often as needed by `products` and `squares`
    of what `map` gave.

    Attributes:
        name: `"plain"` or `"canonical"`.
    """

    name: str

    @abstractmethod
    def map(self, flat: Tensor) -> Tensor:
        """Flat `[N, numel]` → what is compared, `[N, F]`."""

    @abstractmethod
    def products(self, a: Tensor, b: Tensor) -> Tensor:
        """`[N, M]` inner products in float64."""

    @abstractmethod
    def squares(self, a: Tensor) -> Tensor:
        """`[N]` inner products with itself."""

    def squared_distances(self, a: Tensor, b: Tensor) -> Tensor:
        """`[N, M]` squared distances in float64, never negative."""
        out = self.products(a, b).mul_(-2)
        return out.add_(self.squares(a)[:, None]).add_(self.squares(b)[None]).clamp_(min=0)

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """`[N, M]` distances in float64."""
        return self.squared_distances(a, b).sqrt_()

    def refine(
        self, a: Tensor, b: Tensor, distances: Tensor, hints: Tensor | None = None
    ) -> Tensor:
        """Distances in which those of near pairs are as small as the space can make them.

        Args:
            a: `[N, F]`.
            b: `[M, F]`.
            distances: `[N, M]` distances of the two; infinite where a pair does not count.
            hints: `[N]`, one of `b` for each of `a` that may be near.

        Returns:
            `[N, M]`.
        """
        return distances


class FlatSpace(Space):
    """Euclidean distance of all weights; with a symmetry, of their canonical form.

    Batch-norm statistics are left out: they are measured, not learned. Products are taken in
    float64 around the mean of the training networks, so that exact copies come out at a distance
    of some 1e-8 of a network's norm.

    Args:
        spec: The weights.
        training: `[N, numel]`, training networks: their mean is the origin, and in a canonical
            space one of them is what hidden units are matched to.
        symmetry: Permutations of hidden units; none for plain distances.
        scaling: Units whose scale is free, see `balance_units`.
    """

    def __init__(
        self,
        spec: WeightSpec,
        training: Tensor,
        symmetry: Symmetry | None = None,
        scaling: tuple[ScalingGroup, ...] = (),
    ) -> None:
        self.name = "plain" if symmetry is None else "canonical"
        self.spec, self.symmetry, self.scaling = spec, symmetry, scaling
        kept = [
            torch.full((slot.numel,), not slot.name.endswith(_STATISTICS)) for slot in spec.slots
        ]
        self._kept = torch.cat(kept)
        self._reference: Tensor | None = None
        balanced = self._balanced(training)
        if symmetry is not None:
            self._reference = balanced[pick_reference(balanced, symmetry)]
        # Mapped several times: matching it takes longer than comparing it.
        self._training, self._mapped = training, self._canonical(training)
        self._centre = self.map(training).double().mean(0)

    def _balanced(self, flat: Tensor) -> Tensor:
        if self.symmetry is None or not self.scaling:
            return flat
        return balance_units(flat, self.spec, self.scaling, max_sweeps=200, tolerance=1e-6)

    def canonical(self, flat: Tensor) -> Tensor:
        """Networks of the same functions, `[N, numel]`, whose units are in the canonical order."""
        return self._mapped if flat is self._training else self._canonical(flat)

    def _canonical(self, flat: Tensor) -> Tensor:
        if self.symmetry is None:
            return flat
        return canonicalize(self._balanced(flat), self.symmetry, self._reference)

    def map(self, flat: Tensor) -> Tensor:
        """Weights that count, in canonical form where there is one."""
        out = self.canonical(flat)
        return out if bool(self._kept.all()) else out[:, self._kept]

    def products(self, a: Tensor, b: Tensor) -> Tensor:
        """`[N, M]` products of weights less the training mean, strip by strip of columns."""
        out = torch.zeros(len(a), len(b), dtype=torch.float64)
        strip = max(64, _NUMBERS // max(1, len(a) + len(b)))
        for start in range(0, a.shape[1], strip):
            part = slice(start, start + strip)
            centre = self._centre[part]
            x = a[:, part].double() - centre
            y = x if b is a else b[:, part].double() - centre
            out.addmm_(x, y.T)
        return out

    def refine(
        self, a: Tensor, b: Tensor, distances: Tensor, hints: Tensor | None = None
    ) -> Tensor:
        """See `Space.refine`; in a canonical space the nearest few are matched to each other.

        All networks are matched to one reference, from which independent networks are equally far
        in almost any order: a little noise then changes the order of some units, and a noisy copy
        would look new. Matching it directly to the networks that seem near finds the copy.
        """
        if self.symmetry is None:
            return distances
        chosen = distances.topk(min(_CANDIDATES, len(b)), dim=1, largest=False).indices
        if hints is not None:
            chosen = torch.cat([chosen, hints[:, None]], dim=1)
        flat = self._whole(a).repeat_interleave(chosen.shape[1], dim=0)
        found = self._whole(b)[chosen.flatten()]
        aligned = align(flat, found, self.symmetry, start="given")
        again = (aligned - found)[:, self._kept].double().norm(dim=1).view(chosen.shape)
        known = distances.gather(1, chosen)
        best = torch.where(known.isfinite(), torch.minimum(again, known), torch.inf)
        return distances.scatter(1, chosen, best)

    def _whole(self, mapped: Tensor) -> Tensor:
        """Flat weights of mapped ones, with zeros for the statistics that were left out."""
        if bool(self._kept.all()):
            return mapped
        out = mapped.new_zeros(len(mapped), self.spec.numel)
        out[:, self._kept] = mapped
        return out

    def squares(self, a: Tensor) -> Tensor:
        """`[N]` squared norms of weights less the training mean."""
        rows = max(1, _NUMBERS // a.shape[1])
        parts = [(part.double() - self._centre).square().sum(1) for part in a.split(rows)]
        return torch.cat(parts)


class UpdateSpace(Space):
    """Distance of LoRA updates ΔW, which many pairs of factors share.

    ⟨ΔW, ΔW'⟩ = Σ over modules of ⟨A A'ᵀ, Bᵀ B'⟩: no update is ever formed.

    Args:
        spec: The LoRAs.
    """

    name = "canonical"

    def __init__(self, spec: LoRASpec) -> None:
        self.spec = spec

    def map(self, flat: Tensor) -> Tensor:
        """The flat factors themselves."""
        return flat

    def products(self, a: Tensor, b: Tensor) -> Tensor:
        """`[N, M]` products of updates."""
        out = torch.zeros(len(a), len(b), dtype=torch.float64)
        for (a1, b1), (a2, b2) in zip(self._factors(a), self._factors(b), strict=True):
            r = a1.shape[1]
            rows = max(1, _NUMBERS // max(1, len(b) * r * r))
            y_a, y_b = a2.flatten(0, 1), b2.flatten(0, 1)
            for i in range(0, len(a), rows):
                x_a, x_b = a1[i : i + rows].flatten(0, 1), b1[i : i + rows].flatten(0, 1)
                pairs = (x_a @ y_a.T).mul_(x_b @ y_b.T)
                out[i : i + rows] += pairs.unflatten(0, (-1, r)).unflatten(2, (-1, r)).sum((1, 3))
        return out

    def squares(self, a: Tensor) -> Tensor:
        """`[N]` squared norms of updates."""
        out = torch.zeros(len(a), dtype=torch.float64)
        for x_a, x_b in self._factors(a):
            out += ((x_a @ x_a.mT) * (x_b @ x_b.mT)).sum((1, 2))
        return out

    def _factors(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each module A `[N, r, in]` and Bᵀ `[N, r, out]`, scaled."""
        parts = flat.split([slot.numel for slot in self.spec], dim=1)
        named = {
            s.name: part.unflatten(1, s.shape) for s, part in zip(self.spec, parts, strict=True)
        }
        out = []
        for module in self.spec.modules:
            name_a, name_b = self.spec.pair_names(module)
            a, b = named[name_a].double(), named[name_b].double().mT
            out.append((a, b * self.spec.scaling(module)))
        return out


@dataclass(frozen=True)
class Mapped:
    """The networks of an audit in one space, compared once."""

    samples: Tensor
    training: Tensor
    heldout: Tensor

    @staticmethod
    def of(space: Space, samples: Networks, training: Networks, heldout: Networks) -> Mapped:
        """Maps all three."""
        return Mapped(*(space.map(part.flat) for part in (samples, training, heldout)))


def make_spaces(
    spec: WeightSpec, training: Tensor, config: Mapping[str, Any] | None = None
) -> list[Space]:
    """The plain space, and the canonical one where the architecture is known to have it.

    Args:
        spec: The weights.
        training: `[N, numel]` training networks.
        config: Description of the architecture as a zoo holds it (`Network.to_dict()`).

    Returns:
        One or two spaces.
    """
    spaces: list[Space] = [FlatSpace(spec, training)]
    if isinstance(spec, LoRASpec):
        return [*spaces, UpdateSpace(spec)]
    try:
        symmetry = symmetry_of(spec, config or {})
    except UsageError:
        return spaces
    scaling = Network.from_dict(config or {}).scaling()
    if symmetry.groups:
        spaces.append(FlatSpace(spec, training, symmetry, scaling))
    return spaces
