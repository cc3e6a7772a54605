"""WeightSpec: the ordered, typed slots that a generator emits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from hypergen._utils.errors import SpecError, WeightsError, did_you_mean
from hypergen._utils.seeding import generator as seeded
from hypergen.specs.slot import Group, Slot

if TYPE_CHECKING:
    from hypergen.specs.weights import Weights

FORMAT_VERSION = 1


class WeightSpec:
    """An ordered tuple of slots, and every view of the numbers that fill them.

    Slots of one group (`Slot.group_key`) are kept next to each other (in the order in which they
    were given), so that the flat vector `[B, numel]` is the concatenation of the groups
    `[B, len(group), *shape]` and every conversion between the two is a view.

    A spec is immutable and hashable, does not hold the model, and is saved as JSON with every
    generator. Subclasses read the slots off a model; they add no state of their own beyond
    `config`, so that `WeightSpec.from_dict` rebuilds any of them without the model.

    Args:
        slots: The slots, in the order of the network. Names must be unique.
        config: JSON-serialisable settings of the kind of spec (rank, alpha, base model, …).

    Raises:
        SpecError: No slot, or two slots of one name.
    """

    kind: ClassVar[str] = "generic"
    _kinds: ClassVar[dict[str, type[WeightSpec]]] = {}

    slots: tuple[Slot, ...]
    config: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        WeightSpec._kinds[cls.kind] = cls

    def __init__(self, slots: Iterable[Slot], config: Mapping[str, Any] | None = None) -> None:
        slots = tuple(slots)
        if not slots:
            raise SpecError("a WeightSpec needs at least one slot")
        names = [slot.name for slot in slots]
        twice = (
            sorted({name for name in names if names.count(name) > 1})
            if len(set(names)) != len(names)
            else []
        )
        if twice:
            raise SpecError(f"slot names must be unique, but {twice[0]!r} is given twice")
        first: dict[tuple[str, tuple[int, ...], str, bool], int] = {}
        for slot in slots:
            first.setdefault(slot.group_key, len(first))
        # A stable sort: groups by first appearance, slots of a group in the order of the network.
        self.slots = tuple(sorted(slots, key=lambda slot: first[slot.group_key]))
        self.config = json.loads(json.dumps(dict(config or {}), sort_keys=True))

    # -- structure -----------------------------------------------------------------------------

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups in flat order."""
        groups: list[Group] = []
        start = offset = 0
        for stop in range(1, len(self.slots) + 1):
            slot = self.slots[start]
            if stop == len(self.slots) or self.slots[stop].group_key != slot.group_key:
                groups.append(Group(slot.role, slot.shape, slot.dtype, start, stop, offset))
                offset += groups[-1].numel
                start = stop
        return tuple(groups)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Slot names in flat order."""
        return tuple(slot.name for slot in self.slots)

    @cached_property
    def location(self) -> dict[str, tuple[int, int]]:
        """Slot name → (index of its group, index within the group)."""
        return {
            self.slots[i].name: (g, i - group.start)
            for g, group in enumerate(self.groups)
            for i in range(group.start, group.stop)
        }

    @cached_property
    def numel(self) -> int:
        """Number of entries of one network."""
        return sum(slot.numel for slot in self.slots)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Smallest dtype in which every slot fits exactly: that of the flat vector."""
        dtype: torch.dtype = getattr(torch, self.slots[0].dtype)
        for slot in self.slots:
            dtype = torch.promote_types(dtype, getattr(torch, slot.dtype))
        return dtype

    def __len__(self) -> int:
        return len(self.slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots)

    def __getitem__(self, name: str) -> Slot:
        if name not in self.location:
            raise SpecError(f"no slot {name!r} in this spec.{did_you_mean(name, self.names)}")
        group, index = self.location[name]
        return self.slots[self.groups[group].start + index]

    def __contains__(self, name: object) -> bool:
        return name in self.location

    def __eq__(self, other: object) -> bool:
        # By the cached fingerprint: targets compare specs at every call.
        return isinstance(other, WeightSpec) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return int(self.fingerprint[:15], 16)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.slots)} slots in {len(self.groups)} groups, "
            f"{self.numel:,} numbers)"
        )

    # -- conversion ----------------------------------------------------------------------------

    def validate(self, tensors: Mapping[str, Tensor], *, finite: bool = True) -> int:
        """Checks named tensors against the slots.

        Args:
            tensors: Slot name → tensor `[*shape]` or, for all of them, `[B, *shape]`.
            finite: Also reject NaN and infinity.

        Returns:
            The batch size, or 0 when the tensors carry no batch axis.

        Raises:
            WeightsError: A tensor is missing, unexpected, of a wrong shape or not finite; the
                message names the slot.
        """
        for name in self.names:
            if name not in tensors:
                raise WeightsError(f"slot {name!r} is missing from the tensors")
        for name in tensors:
            if name not in self.location:
                raise WeightsError(f"unexpected tensor {name!r}.{did_you_mean(name, self.names)}")
        first = tensors[self.names[0]]
        batched = first.dim() == len(self.slots[0].shape) + 1
        batch = first.shape[0] if batched else 0
        for slot in self.slots:
            tensor = tensors[slot.name]
            expected = (batch, *slot.shape) if batched else slot.shape
            if tuple(tensor.shape) != expected:
                raise WeightsError(
                    f"slot {slot.name!r} has shape {tuple(tensor.shape)}, expected {expected}"
                )
            if not tensor.is_floating_point():
                raise WeightsError(f"slot {slot.name!r} is {tensor.dtype}, not floating point")
            if finite and not bool(torch.isfinite(tensor).all()):
                raise WeightsError(f"slot {slot.name!r} contains NaN or infinity")
        return batch

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Named tensors → flat vector, bit-exact.

        Args:
            tensors: Slot name → `[*shape]` or `[B, *shape]`.

        Returns:
            `[numel]` or `[B, numel]`, in `self.dtype`.

        Raises:
            WeightsError: See `validate` (finiteness is not checked here).
        """
        self.validate(tensors, finite=False)
        first = tensors[self.names[0]]
        lead = first.shape[: first.dim() - len(self.slots[0].shape)]
        return torch.cat(
            [tensors[slot.name].to(self.dtype).reshape(*lead, slot.numel) for slot in self.slots],
            dim=-1,
        )

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """Flat vector → named tensors in the slots' own dtypes, the inverse of `pack`.

        Args:
            flat: `[numel]` or `[B, numel]`.

        Raises:
            WeightsError: The last axis is not `numel` long.
        """
        self._check_flat(flat)
        out: dict[str, Tensor] = {}
        offset = 0
        for slot in self.slots:
            part = flat[..., offset : offset + slot.numel]
            out[slot.name] = part.reshape((*flat.shape[:-1], *slot.shape)).to(
                getattr(torch, slot.dtype)
            )
            offset += slot.numel
        return out

    def _check_flat(self, flat: Tensor) -> None:
        if flat.dim() not in (1, 2) or flat.shape[-1] != self.numel:
            raise WeightsError(
                f"a flat vector of this spec has shape [{self.numel}] or [B, {self.numel}], "
                f"not {list(flat.shape)}"
            )

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Flat `[B, numel]` → one view `[B, len(group), *shape]` for each group."""
        self._check_flat(flat)
        # One split, not a slice a group: its gradient is one concatenation instead of a full
        # buffer of zeros for every group.
        parts = flat.split([g.numel for g in self.groups], dim=1)
        return tuple(
            part.unflatten(1, (len(g), *g.shape))
            for part, g in zip(parts, self.groups, strict=True)
        )

    def from_flat(self, flat: Tensor) -> Weights:
        """Wraps a flat `[B, numel]` (or `[numel]`, which becomes B=1) as `Weights`, no copy."""
        from hypergen.specs.weights import Weights

        flat = flat[None] if flat.dim() == 1 else flat
        return Weights(self, self.split(flat), flat=flat)

    def from_named(self, tensors: Mapping[str, Tensor]) -> Weights:
        """Named tensors `[*shape]` or `[B, *shape]` → `Weights`; see `validate` for errors."""
        self.validate(tensors)
        return self.from_flat(self.pack(tensors))

    # -- starting values -----------------------------------------------------------------------

    def per_entry(self, attribute: str) -> Tensor:
        """Spreads a slot attribute (`mean`, `std` or `scale`) over the flat vector `[numel]`."""
        values = torch.tensor([getattr(slot, attribute) for slot in self.slots])
        return values.repeat_interleave(torch.tensor([slot.numel for slot in self.slots]))

    def initial(self, seed: int = 0) -> Tensor:
        """Draws the starting values of one network.

        Every slot draws from its own generator, seeded by its name, so that the values do not
        depend on which other slots the spec has.

        Returns:
            `[numel]` in float32, with each slot's `mean` and `std`.
        """
        parts = []
        for slot in self.slots:
            generator = seeded("initial", seed, slot.name)
            parts.append(slot.mean + slot.std * torch.randn(slot.numel, generator=generator))
        return torch.cat(parts)

    def neutral(self, batch: int = 1) -> Weights:
        """Weights that leave the base model as it is, for abstaining.

        Raises:
            SpecError: This kind of spec replaces weights instead of adding to them.
        """
        if not self.is_additive:
            raise SpecError(
                f"a {type(self).__name__} has no neutral weights: it replaces the base's own"
            )
        return self.from_flat(self.initial(0).expand(batch, -1).clone())

    @property
    def is_additive(self) -> bool:
        """Whether the starting values leave the base model unchanged."""
        return False

    # -- files ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form, with format version and kind."""
        return {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "config": self.config,
            "slots": [slot.to_dict() for slot in self.slots],
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> WeightSpec:
        """Rebuilds any spec from `to_dict`, without a model.

        Raises:
            SpecError: Unknown kind or version, or malformed slots.
        """
        if data.get("format_version") != FORMAT_VERSION:
            raise SpecError(
                f"spec has format version {data.get('format_version')!r}; this hypergen reads "
                f"{FORMAT_VERSION}"
            )
        kind = data.get("kind", "")
        cls = WeightSpec if kind == WeightSpec.kind else WeightSpec._kinds.get(kind)
        if cls is None:
            raise SpecError(
                f"unknown kind of spec {kind!r}.{did_you_mean(kind, WeightSpec._kinds)}"
            )
        spec = cls.__new__(cls)
        WeightSpec.__init__(spec, map(Slot.from_dict, data["slots"]), data["config"])
        return spec

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON: equal specs in any process have equal fingerprints."""
        # Tuples and lists are one thing in JSON, so the dump of a loaded spec is the same text.
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
