"""Weight matching: permutes hidden units so that networks lie close to a reference."""

from __future__ import annotations

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError, WeightsError, did_you_mean
from hypergen.zoo.canonical.ascent import Ascent, Start
from hypergen.zoo.canonical.symmetry import Symmetry, take

_STARTS = ("best", "forward", "given")
_ENTRIES = 1 << 20  # entries of networks held at a time: their copies then fit into the cache
_ROUNDS = 10  # of matching what matching has moved; two do unless units are tied


def match(
    flat: Tensor,
    reference: Tensor,
    symmetry: Symmetry,
    *,
    start: Start = "best",
    max_sweeps: int = 100,
) -> list[Tensor]:
    """Finds permutations that bring each network close to a reference.

    Weight matching of Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation
    Symmetries", ICLR 2023, arXiv:2209.04836: the inner product of the permuted and the reference
    weights is raised group by group, each by an exact linear assignment with the others held
    fixed, until no group changes. Groups come in a fixed order, so equal input gives equal output.

    Coordinate ascent ends in a local optimum that depends on where it starts:

    - `"given"` starts from the units as they are. The inner product never falls.
    - `"forward"` first matches group after group on the entries that matched groups and fixed
      axes (inputs, outputs) leave in place. It forgets the given order: permuted copies of a
      network end in the same weights, those of the reference in the reference itself.
    - `"best"` does both and keeps the better, the given one if equal.

    Args:
        flat: `[N, numel]`, finite.
        reference: `[numel]`, or `[N, numel]` for one each.
        symmetry: The groups of the spec of both.
        start: See above.
        max_sweeps: Bound on the passes over the groups; a handful is usual.

    Returns:
        For each group of the symmetry `[N, size]`, as `Symmetry.index` takes them.

    Raises:
        WeightsError: The weights do not fit the spec, or hold NaN or infinity.
        UsageError: Unknown start.
    """
    if start not in _STARTS:
        raise UsageError(f"weight matching has no start {start!r}.{did_you_mean(start, _STARTS)}")
    symmetry.check(flat)
    references = torch.atleast_2d(reference)
    symmetry.check(references)
    if len(references) not in (1, len(flat)):
        raise WeightsError(f"{len(references)} references for {len(flat)} networks")
    _check_finite(flat, "network")
    _check_finite(references, "reference")
    rows = max(1, _ENTRIES // symmetry.spec.numel)
    parts: list[list[Tensor]] = []
    for first in range(0, len(flat), rows):
        part = slice(first, first + rows)
        own = references if len(references) == 1 else references[part]
        if start == "forward":
            parts.append(_settled(flat[part], own, symmetry, max_sweeps))
        else:
            parts.append(Ascent(flat[part], own, symmetry).run(start, max_sweeps))
    if not parts:
        return [torch.empty(0, g.size, dtype=torch.long) for g in symmetry.groups]
    return [torch.cat(permutations) for permutations in zip(*parts, strict=True)]


def align(
    flat: Tensor,
    reference: Tensor,
    symmetry: Symmetry,
    *,
    start: Start = "best",
    max_sweeps: int = 100,
) -> Tensor:
    """Permutes the hidden units of each network so that it lies close to a reference.

    See `match` for the method, the arguments and the errors.

    Returns:
        `[N, numel]`, bit for bit the same numbers in another order.
    """
    permutations = match(flat, reference, symmetry, start=start, max_sweeps=max_sweeps)
    if not permutations:
        return flat.clone()
    return flat.gather(1, symmetry.index(permutations).to(flat.device))


def canonicalize(flat: Tensor, symmetry: Symmetry, reference: Tensor | None = None) -> Tensor:
    """Brings each network to the one order of units that fits a reference.

    Networks that are permutations of each other become equal, and a second call changes nothing.
    (Units that agree exactly in all that settled groups say of them, as happens with weights
    rounded to a few values, may end in an order that depends on the given one.) For zoos that grow
    or that do not fit into memory, keep the reference and pass it.

    Args:
        flat: `[N, numel]`, finite.
        symmetry: The groups of the networks' spec.
        reference: `[numel]`; `flat[pick_reference(flat, symmetry)]` when not given.

    Returns:
        `[N, numel]`.

    Raises:
        WeightsError: The weights do not fit the spec, or hold NaN or infinity.
    """
    symmetry.check(flat)
    if not len(flat):
        return flat.clone()
    if reference is None:
        reference = flat[pick_reference(flat, symmetry)]
    return align(flat, reference, symmetry, start="forward")


def pick_reference(flat: Tensor, symmetry: Symmetry) -> int:
    """Picks a typical network to align the others to, whatever the order of anyone's units.

    Networks are described by the sorted norms of their units, which no permutation changes; the
    one nearest to the median of these is picked (the first, if several are as near). Networks
    that diverged or died are far from it.

    Args:
        flat: `[N, numel]`, N at least 1.
        symmetry: The groups of the networks' spec.

    Returns:
        Position of the network.

    Raises:
        WeightsError: The weights do not fit the spec, hold NaN or infinity, or are none.
    """
    symmetry.check(flat)
    _check_finite(flat, "network")
    if not len(flat):
        raise WeightsError("no networks to pick a reference from")
    norms = [
        torch.linalg.vector_norm(take(flat, positions), dim=2, dtype=torch.float64).sort(1).values
        for rounds in symmetry.positions
        for positions in rounds
    ]
    if not norms:
        return 0
    described = torch.cat(norms, dim=1)
    distance = (described - described.median(0).values).norm(dim=1)
    # Permuted copies of one network differ by rounding: the first of them is meant.
    near = distance <= distance.min() * (1 + 1e-6) + 1e-12 * described.abs().max()
    return int(near.nonzero()[0])


def _settled(flat: Tensor, reference: Tensor, symmetry: Symmetry, max_sweeps: int) -> list[Tensor]:
    """Matches forward, and again what matching moved, until it moves nothing.

    Twice is enough, except where units agree exactly in all that the forward pass looks at.
    """
    out = [torch.arange(g.size).repeat(len(flat), 1) for g in symmetry.groups]
    rows = torch.arange(len(flat))
    for _ in range(_ROUNDS):
        own = reference if len(reference) == 1 else reference[rows]
        step = Ascent(flat, own, symmetry).run("forward", max_sweeps)
        moved = torch.zeros(len(rows), dtype=torch.bool)
        for whole, permutation in zip(out, step, strict=True):
            moved |= (permutation != torch.arange(permutation.shape[1])).any(1)
            whole[rows] = whole[rows].gather(1, permutation)
        if not bool(moved.any()):
            break
        flat = flat.gather(1, symmetry.index(step).to(flat.device))[moved]
        rows = rows[moved]
    return out


def _check_finite(flat: Tensor, what: str) -> None:
    bad = (~torch.isfinite(flat)).any(1)
    if bool(bad.any()):
        raise WeightsError(f"{what} {int(bad.nonzero()[0])} contains NaN or infinity")
