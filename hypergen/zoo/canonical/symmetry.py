"""Symmetry: which units of a network can be permuted without changing its function."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import SpecError, UsageError, WeightsError, did_you_mean
from hypergen.specs import LoRASpec, WeightSpec

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Place:
    """One axis of one slot, along which the units of a group lie.

    The axis is read as `(outer, units, inner)`: `inner` entries next to each other move together
    (the rows of an attention head; the pixels of a channel after flattening `[C, H, W]`), and the
    whole arrangement repeats `outer` times (fused query, key and value: 3).

    Attributes:
        slot: Name of the slot.
        axis: Axis of the slot, from 0.
        outer: Times that the sequence of units repeats along the axis.
        inner: Entries of one unit that are next to each other.
    """

    slot: str
    axis: int
    outer: int = 1
    inner: int = 1


@dataclass(frozen=True)
class PermutationGroup:
    """Units that can be permuted, and every place where they must be permuted together.

    Attributes:
        name: What the units are, unique within a symmetry.
        size: Number of units.
        places: Every axis along which they lie.
    """

    name: str
    size: int
    places: tuple[Place, ...]


def group(
    name: str, size: int, rows: Sequence[str], places: Sequence[Place] = ()
) -> PermutationGroup:
    """Writes a group whose units are the first axis of `rows`, and lie in further `places`."""
    return PermutationGroup(name, size, (*(Place(row, 0) for row in rows), *places))


class Symmetry:
    """Permutation groups of the hidden units of one spec.

    Permuting the units of one group in all of its places at once leaves the function of the
    network unchanged. Entries are addressed in the flat vector, so that a permutation of whole
    networks is one gather.

    Args:
        spec: The spec of the weights.
        groups: The groups, in the order in which weight matching visits them.

    Raises:
        SpecError: A place names a slot or an axis that is not there, an axis of another length,
            or one that another place takes too; the message names the slot and the group.
    """

    def __init__(self, spec: WeightSpec, groups: Iterable[PermutationGroup]) -> None:
        self.spec = spec
        groups = tuple(groups)
        names = [g.name for g in groups]
        for name in names:
            if names.count(name) > 1:
                raise SpecError(f"two permutation groups are called {name!r}")
        taken: dict[tuple[str, int], str] = {}
        for g in groups:
            if g.size < 1 or not g.places:
                raise SpecError(f"permutation group {g.name!r} has no units or no places")
            for place in g.places:
                check_place(place, g.name, g.size, spec)
                if (place.slot, place.axis) in taken:
                    raise SpecError(
                        f"permutation group {g.name!r}: axis {place.axis} of slot {place.slot!r} "
                        f"is taken already, by {taken[place.slot, place.axis]!r}"
                    )
                taken[place.slot, place.axis] = g.name
        self.groups = groups

    def __repr__(self) -> str:
        units = ", ".join(f"{g.name}: {g.size}" for g in self.groups)
        return f"Symmetry({units or 'no groups'})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Symmetry) and self.spec == other.spec and self.groups == other.groups
        )

    def __hash__(self) -> int:
        return hash((self.spec, self.groups))

    # -- index space ---------------------------------------------------------------------------

    @cached_property
    def positions(self) -> tuple[tuple[Tensor, ...], ...]:
        """For each group: entries of the flat vector by unit, `[size, F]`, disjoint within one.

        A group has one such tensor, and more only where a slot has the group on several axes: its
        axes are then permuted one after the other.
        """
        out = []
        for own in self.groups:
            rounds: list[list[Tensor]] = []
            for i, place in enumerate(own.places):
                turn = sum(before.slot == place.slot for before in own.places[:i])
                rounds += [[]] if turn == len(rounds) else []
                rounds[turn].append(entries_of(self.spec, own.size, place))
            out.append(tuple(torch.cat(parts, dim=1) for parts in rounds))
        return tuple(out)

    def check(self, flat: Tensor) -> None:
        """Checks that networks are flat weights of this symmetry's spec.

        Raises:
            WeightsError: They are not `[N, numel]` of a floating-point dtype.
        """
        if flat.dim() != 2 or flat.shape[1] != self.spec.numel or not flat.is_floating_point():
            raise WeightsError(
                f"networks of this symmetry are floating-point numbers of shape "
                f"[N, {self.spec.numel}], not {list(flat.shape)} of {flat.dtype}"
            )

    def index(self, permutations: Sequence[Tensor]) -> Tensor:
        """Turns permutations of units into one of the flat vector.

        Args:
            permutations: For each group `[N, size]`; unit `i` of the result is unit
                `permutations[g][n, i]` of the source.

        Returns:
            `[N, numel]`, to be used as `flat.gather(1, index)`.

        Raises:
            UsageError: Another number of groups, or a permutation of another size.
        """
        if len(permutations) != len(self.groups):
            raise UsageError(
                f"{len(permutations)} permutations for the {len(self.groups)} groups of {self!r}"
            )
        count = len(permutations[0]) if permutations else 1
        index = torch.arange(self.spec.numel).repeat(count, 1)
        for g, (own, permutation) in enumerate(zip(self.groups, permutations, strict=True)):
            if permutation.shape != (count, own.size):
                raise UsageError(
                    f"the permutations of group {own.name!r} have shape "
                    f"{list(permutation.shape)}, expected {[count, own.size]}"
                )
            self.permute_(index, g, permutation)
        return index

    def permute_(self, flat: Tensor, g: int, permutation: Tensor) -> None:
        """Permutes the units of group number `g` of each row of `flat` in place.

        Args:
            flat: `[N, numel]`, weights or anything else that lies like them.
            g: Number of the group.
            permutation: `[N, size]`, as in `index`.
        """
        for positions in self.positions[g]:
            units = take(flat, positions)
            moved = units.gather(1, permutation.to(flat.device)[..., None].expand_as(units))
            flat.index_copy_(1, positions.flatten().to(flat.device), moved.flatten(1))

    # -- files ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form of the groups; the spec is stored elsewhere."""
        groups = [
            {"name": g.name, "size": g.size, "places": [asdict(place) for place in g.places]}
            for g in self.groups
        ]
        return {"format_version": FORMAT_VERSION, "groups": groups}

    @staticmethod
    def from_dict(data: Mapping[str, Any], spec: WeightSpec) -> Symmetry:
        """Rebuilds a symmetry from `to_dict`, or from a file that someone wrote by hand.

        Args:
            data: `{"format_version": 1, "groups": [{"name": …, "size": …, "places": [{"slot": …,
                "axis": …, "outer": 1, "inner": 1}, …]}, …]}`.
            spec: The spec whose slots the places name.

        Raises:
            SpecError: Another version, a missing or unknown field, or groups that do not fit.
        """
        if not isinstance(data, Mapping) or data.get("format_version") != FORMAT_VERSION:
            found = data.get("format_version") if isinstance(data, Mapping) else data
            raise SpecError(
                f"symmetry has format version {found!r}; this hypergen reads {FORMAT_VERSION}"
            )
        groups = []
        for entry in _items(data.get("groups"), "groups"):
            _check_fields(entry, PermutationGroup, "a permutation group")
            places = []
            for place in _items(entry["places"], "places"):
                _check_fields(place, Place, f"a place of permutation group {entry['name']!r}")
                places.append(Place(**place))
            groups.append(
                PermutationGroup(str(entry["name"]), _whole(entry, "size"), tuple(places))
            )
        return Symmetry(spec, groups)


def entries_of(spec: WeightSpec, size: int, place: Place) -> Tensor:
    """Entries of the flat vector that a place covers, by unit: `[size, F]`."""
    slot = spec[place.slot]
    offset = sum(s.numel for s in itertools.takewhile(lambda s: s.name != slot.name, spec))
    entries = offset + torch.arange(slot.numel).view(slot.shape)
    units = entries.movedim(place.axis, 0).unflatten(0, (place.outer, size, place.inner))
    return units.transpose(0, 1).reshape(size, -1)


def take(flat: Tensor, positions: Tensor) -> Tensor:
    """Entries of each row of `flat` `[N, numel]` at `positions` `[size, F]`: `[N, size, F]`."""
    # index_select copies several times faster than indexing by a tensor of positions.
    return flat.index_select(1, positions.flatten().to(flat.device)).unflatten(1, positions.shape)


def symmetry_of(spec: WeightSpec, config: Mapping[str, Any]) -> Symmetry:
    """Finds the symmetry of an architecture of a zoo.

    Networks of `hypergen.zoo.networks` know their own. In LoRAs, the rank components of each
    module can be permuted; zoos with padded ranks should use `canonicalize_lora` instead, which
    keeps the padding at the end.

    Args:
        spec: The spec of the weights.
        config: The architecture's description: `Network.to_dict()`, or anything for LoRAs.

    Raises:
        UsageError: Nothing is known about this architecture.
        SpecError: The spec is not that of the architecture; names a slot.
    """
    if isinstance(spec, LoRASpec):
        groups = []
        for module in spec.modules:
            a, b = spec.pair_names(module)
            groups.append(group(module, spec.rank(module), [a], [Place(b, 1)]))
        return Symmetry(spec, groups)
    if not config:
        raise UsageError(
            "the symmetry of an architecture without description is unknown: write its groups down "
            "and read them by Symmetry.from_dict"
        )
    from hypergen.zoo.networks import Network

    return Symmetry(spec, Network.from_dict(config).symmetry().groups)


def check_place(place: Place, name: str, size: int, spec: WeightSpec) -> None:
    """Checks that a place of group `name` fits the spec.

    Raises:
        SpecError: No such slot or axis, or an axis of another length; names slot and group.
    """
    where = f"permutation group {name!r}"
    if place.slot not in spec:
        raise SpecError(
            f"{where} names slot {place.slot!r}, which the spec does not have."
            + did_you_mean(place.slot, spec.names)
        )
    shape = spec[place.slot].shape
    if not 0 <= place.axis < len(shape):
        raise SpecError(f"{where}: slot {place.slot!r} has shape {shape}, no axis {place.axis}")
    if min(place.outer, place.inner) < 1:
        raise SpecError(f"{where}: outer and inner of slot {place.slot!r} must be at least 1")
    wanted = place.outer * size * place.inner
    if shape[place.axis] != wanted:
        raise SpecError(
            f"{where}: axis {place.axis} of slot {place.slot!r} is {shape[place.axis]} long, its "
            f"units take {wanted} (outer {place.outer} · units {size} · inner {place.inner})"
        )


def _items(value: Any, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise SpecError(f"{name} of a symmetry must be a list of mappings")
    return value


def _check_fields(entry: Mapping[str, Any], cls: type, what: str) -> None:
    known = [field.name for field in fields(cls)]
    required = known if cls is PermutationGroup else ["slot", "axis"]
    for name in required:
        if name not in entry:
            raise SpecError(f"{what} has no field {name!r}")
    for name in entry:
        if name not in known:
            raise SpecError(f"{what} has an unknown field {name!r}")
    for name, value in entry.items():
        if name in ("axis", "outer", "inner"):
            _whole(entry, name)
        elif name == "slot" and not isinstance(value, str):
            raise SpecError(f"{what} names a slot by {value!r}, which is no text")


def _whole(entry: Mapping[str, Any], name: str) -> int:
    value = entry[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(f"{name} in a symmetry must be a whole number, not {value!r}")
    return value
