"""Coordinate ascent over permutation groups, for many networks at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hypergen.zoo.canonical.symmetry import PermutationGroup, Symmetry, entries_of, take

Start = Literal["best", "forward", "given"]


class Ascent:
    """Coordinate ascent for a batch of networks that fits into memory.

    Costs are in float64: rounding then neither decides between permutations nor depends on which
    networks share a batch.

    Args:
        flat: `[B, numel]`, the networks to permute.
        reference: `[1, numel]` or `[B, numel]`.
        symmetry: The groups of both.
    """

    def __init__(self, flat: Tensor, reference: Tensor, symmetry: Symmetry) -> None:
        self.symmetry = symmetry
        self.source = flat.detach().cpu().double()
        self.reference = reference.detach().cpu().double()
        slots = [{place.slot for place in g.places} for g in symmetry.groups]
        # A group must be looked at again when one that shares a slot with it has changed.
        self.neighbours = torch.tensor(
            [
                [
                    bool(a & b) and (i != j or len(symmetry.positions[i]) > 1)
                    for j, b in enumerate(slots)
                ]
                for i, a in enumerate(slots)
            ]
        )

    def run(self, start: Start, max_sweeps: int) -> list[Tensor]:
        """Permutations `[B, size]` of each group; see `match` for the starts."""
        given = [torch.arange(g.size).repeat(len(self.source), 1) for g in self.symmetry.groups]
        flat = self.source
        if start != "forward":
            flat, given = self.ascend(given, max_sweeps)
        if start == "given":
            return given
        other, found = self.ascend(self.forward(), max_sweeps)
        gain = ((other - flat) * self.reference).sum(1)
        slack = 1e-9 * self.source.norm(dim=1) * self.reference.norm(dim=1)
        # Equally good: the given order stays, so that aligned networks are left alone.
        keep = gain <= slack
        if start == "forward":
            keep &= gain >= -slack
        return [torch.where(keep[:, None], a, b) for a, b in zip(given, found, strict=True)]

    def costs(self, flat: Tensor, rows: Tensor, entries: Sequence[Tensor]) -> Tensor:
        """Inner products `[B, reference unit, own unit]` of units, summed over `entries`.

        Args:
            flat: `[B, numel]`, some of the networks.
            rows: `[B]`, which ones.
            entries: Tensors `[size, F]` of positions.
        """
        out: list[Tensor] = []
        for part in entries:
            reference = take(self.references(rows), part)
            # One reference for all networks makes this a single product, not one a network.
            reference = reference[0] if len(reference) == 1 else reference
            out.append((take(flat, part) @ reference.mT).mT)
        return torch.stack(out).sum(0)

    def references(self, rows: Tensor) -> Tensor:
        """References of some networks, `[B, numel]`; `[1, numel]` where all share one."""
        return _rows(self.reference, rows) if len(self.reference) > 1 else self.reference

    def forward(self) -> list[Tensor]:
        """Matches each group once, on entries whose other axes are in order already."""
        flat, everyone = self.source.clone(), torch.arange(len(self.source))
        out: dict[int, Tensor] = {}
        for g, entries in forward_order(self.symmetry):
            out[g] = assign(self.costs(flat, everyone, entries))
            self.symmetry.permute_(flat, g, out[g])
        return [out[g] for g in range(len(self.symmetry.groups))]

    def ascend(self, start: list[Tensor], max_sweeps: int) -> tuple[Tensor, list[Tensor]]:
        """Improves group after group, until nothing changes."""
        flat, out = self.source.clone(), [p.clone() for p in start]
        for g, permutation in enumerate(out):
            self.symmetry.permute_(flat, g, permutation)
        stale = torch.ones(len(flat), len(out), dtype=torch.bool)
        for _ in range(max_sweeps):
            if not bool(stale.any()):
                break
            for g in range(len(out)):
                rows = stale[:, g].nonzero()[:, 0]
                if not len(rows):
                    continue
                stale[rows, g] = False
                better, permutation = self.improve(flat, rows, g)
                rows = rows[better]
                out[g][rows] = out[g][rows].gather(1, permutation[better])
                stale[rows] |= self.neighbours[g]
        return flat, out

    def improve(self, flat: Tensor, rows: Tensor, g: int) -> tuple[Tensor, Tensor]:
        """Permutes one group in place where that raises the inner product.

        Returns:
            Which of the rows changed, `[R]`, and the best permutation of each, `[R, size]`.
        """
        rounds = self.symmetry.positions[g]
        before = _rows(flat, rows)
        costs = self.costs(before, rows, rounds)
        permutation = assign(costs)
        if len(rounds) == 1:
            worth = costs.gather(2, permutation[..., None])[..., 0]
            gain = (worth - costs.diagonal(dim1=1, dim2=2)).sum(1)
        else:
            # Where a slot has the group on both axes the assignment solves a linearised problem.
            trial = before.clone()
            self.symmetry.permute_(trial, g, permutation)
            gain = ((trial - before) * self.references(rows)).sum(1)
        better = gain > 1e-12 * costs.shape[1] * costs.abs().amax((1, 2))
        changed = before[better]
        self.symmetry.permute_(changed, g, permutation[better])
        flat[rows[better]] = changed
        return better, permutation


def forward_order(symmetry: Symmetry) -> list[tuple[int, list[Tensor]]]:
    """Orders groups so that each can be matched on what those before it have put in order.

    Returns:
        Pairs of a group's number and its entries `[size, F]` that no later group moves. The group
        with most of them comes first; one that has none is matched on all of its entries.
    """
    groups = symmetry.groups
    owners: dict[str, list[int]] = {}
    for g, own in enumerate(groups):
        for place in own.places:
            owners.setdefault(place.slot, []).append(g)

    def settled(g: int, own: PermutationGroup) -> list[Tensor]:
        free = set(range(len(groups))) - done
        return [
            entries_of(symmetry.spec, own.size, place)
            for place in own.places
            # The group itself counts once: this place. Twice, and the other axis moves along.
            if sum(o in free for o in owners[place.slot]) == 1
        ]

    done: set[int] = set()
    order: list[tuple[int, list[Tensor]]] = []
    while len(done) < len(groups):
        options = [(g, settled(g, own)) for g, own in enumerate(groups) if g not in done]
        g, entries = max(options, key=lambda option: sum(e.shape[1] for e in option[1]))
        order.append((g, entries or list(symmetry.positions[g])))
        done.add(g)
    return order


def assign(costs: Tensor) -> Tensor:
    """Solves the linear assignment problems of many networks.

    Args:
        costs: `[B, n, n]`, what each pairing of a row with a column is worth.

    Returns:
        `[B, n]`, the column of each row, such that the sum is largest.
    """
    from scipy.optimize import linear_sum_assignment

    out = costs.argmax(2)
    # Every row has its favourite where no two want the same; the rest needs the real algorithm.
    clash = (out.sort(1).values != torch.arange(costs.shape[1])).any(1)
    for b in clash.nonzero()[:, 0].tolist():
        out[b] = torch.from_numpy(linear_sum_assignment(costs[b].numpy(), maximize=True)[1])
    return out


def _rows(flat: Tensor, rows: Tensor) -> Tensor:
    """Some rows in ascending order; all of them without a copy."""
    return flat if len(rows) == len(flat) else flat[rows]
