"""The numbers of a stack: starting values, and one buffer in which each slot is one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hypergen._utils.seeding import generator
from hypergen.specs import Slot, WeightSpec
from hypergen.zoo.ensemble.member import Member
from hypergen.zoo.ensemble.widths import entries_of
from hypergen.zoo.networks import Network


def starting_weights(network: Network, members: Sequence[Member]) -> Tensor:
    """Draws the starting values of every member.

    Each comes from the member's own generator and its own spec, in one draw, so that neither the
    other members nor the padding change it. Padded entries are exactly zero.

    Returns:
        `[M, numel]` of the stack's network.
    """
    spec = network.spec()
    flat = torch.zeros(len(members), spec.numel)
    for own, rows, entries in by_network(network, members):
        start = own.spec()
        draws = torch.empty(len(rows), start.numel)
        for draw, i in zip(draws, rows, strict=True):
            seed = members[i].seed if members[i].start is None else members[i].start
            torch.randn(start.numel, generator=generator("start", seed), out=draw)
        draws.mul_(start.per_entry("std")).add_(start.per_entry("mean"))
        flat[torch.tensor(rows)[:, None], entries] = draws
    return flat


def by_network(
    network: Network, members: Sequence[Member]
) -> Iterator[tuple[Network, list[int], Tensor]]:
    """Groups the members of a stack by architecture.

    Yields:
        A network, the numbers of its members, and where its entries are in the flat vector of the
        stack's network.
    """
    rows: dict[Network, list[int]] = {}
    for i, member in enumerate(members):
        rows.setdefault(member.network or network, []).append(i)
    for own, numbers in rows.items():
        yield own, numbers, entries_of(own.spec(), network.spec())


class StackedWeights:
    """The weights of `M` networks, slot after slot.

    `data` is one vector. Within it each slot is a contiguous `[M, *shape]`, which batched products
    need as their output; what is trained comes first, buffers (statistics) come last, so
    that an optimiser sees one vector, `data[:trained]`.

    Args:
        spec: Spec of one network.
        buffers: Names of the slots that are not trained.
        members: Number of networks.
        device: Where the numbers are.
    """

    def __init__(
        self, spec: WeightSpec, buffers: frozenset[str], members: int, device: torch.device
    ) -> None:
        self.spec, self.buffers, self.members = spec, buffers, members
        self.slots: list[Slot] = sorted(spec, key=lambda slot: slot.name in buffers)
        self.trained_slots = [slot for slot in self.slots if slot.name not in buffers]
        self.trained = members * sum(slot.numel for slot in self.trained_slots)
        self.data = torch.zeros(members * spec.numel, device=device)
        self.views = self.split(self.data, self.slots)

    def split(self, data: Tensor, slots: Sequence[Slot]) -> dict[str, Tensor]:
        """Views `[M, *shape]` by name of a vector that begins with these slots."""
        views, start = {}, 0
        for slot in slots:
            stop = start + self.members * slot.numel
            views[slot.name] = data[start:stop].view(self.members, *slot.shape)
            start = stop
        return views

    def load(self, flat: Tensor) -> None:
        """Takes the numbers of `[M, numel]`, in the order of the spec."""
        parts = flat.to(self.data.device).split([slot.numel for slot in self.spec], dim=1)
        for slot, part in zip(self.spec, parts, strict=True):
            self.views[slot.name].copy_(part.unflatten(1, slot.shape))

    def flat(self) -> Tensor:
        """`[M, numel]` on the CPU, in the order of the spec."""
        parts = [self.views[slot.name].flatten(1) for slot in self.spec]
        return torch.cat(parts, dim=1).cpu()
