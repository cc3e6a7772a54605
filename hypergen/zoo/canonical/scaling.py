"""The scaling symmetry of ReLU units, fixed by balancing what comes in and what goes out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergen._utils.errors import WeightsError
from hypergen.specs import WeightSpec
from hypergen.zoo.canonical.symmetry import Place, Symmetry, check_place, entries_of, take


@dataclass(frozen=True)
class ScalingGroup:
    """Units whose incoming weights can grow by s > 0 while the outgoing ones shrink by it.

    Attributes:
        name: What the units are.
        size: Number of units.
        incoming: Places of the weights and biases that make a unit's input.
        outgoing: Places of the weights that read its output.
    """

    name: str
    size: int
    incoming: tuple[Place, ...]
    outgoing: tuple[Place, ...]


def scaling_of(symmetry: Symmetry, *, norm: bool) -> tuple[ScalingGroup, ...]:
    """Reads scaling groups off the permutation groups of a feed-forward ReLU network.

    Args:
        symmetry: Groups whose units are first axes of what makes them, second axes of what reads
            them.
        norm: Whether a normalisation layer comes before the activation. Its scale and shift are
            then what makes the unit: they scale exactly, the weights before them do not.
    """
    groups = []
    for own in symmetry.groups:
        rows = [place for place in own.places if place.axis == 0]
        if norm:
            rows = [place for place in rows if symmetry.spec[place.slot].role == "norm"]
            paths = {symmetry.spec[place.slot].module for place in rows}
            rows += [Place(f"{path}.bias", 0) for path in sorted(paths)]
        columns = tuple(place for place in own.places if place.axis == 1)
        groups.append(ScalingGroup(own.name, own.size, tuple(rows), columns))
    return tuple(groups)


@torch.no_grad()
def balance_units(
    flat: Tensor,
    spec: WeightSpec,
    groups: tuple[ScalingGroup, ...],
    *,
    max_sweeps: int = 1000,
    tolerance: float = 1e-7,
) -> Tensor:
    """Rescales each unit so that its incoming and outgoing weights have equal norms.

    relu(s x) = s relu(x) for s > 0, so that networks of one function differ in the scales of their
    units (Neyshabur et al., "Path-SGD", NeurIPS 2015, arXiv:1506.02617). The balanced network has
    the smallest sum of squares among them, which makes it unique; it is reached by balancing layer
    after layer. Units without incoming or outgoing weights are left as they are.

    Args:
        flat: `[N, numel]`, finite.
        spec: The networks' spec.
        groups: Units to balance, e.g. `Network.scaling()`.
        max_sweeps: Bound on the passes over the groups.
        tolerance: Stops when no unit of any network was rescaled by more than this share.

    Returns:
        `[N, numel]`, networks of the same functions, in the dtype of `flat`.

    Raises:
        SpecError: A group names a slot or an axis that the spec does not have.
        WeightsError: The weights do not fit the spec, or hold NaN or infinity.
    """
    Symmetry(spec, ()).check(flat)
    if not bool(torch.isfinite(flat).all()):
        raise WeightsError("networks to balance contain NaN or infinity")
    sides: list[tuple[Tensor, Tensor]] = []
    for own in groups:
        for place in (*own.incoming, *own.outgoing):
            check_place(place, own.name, own.size, spec)
        incoming, outgoing = (
            torch.cat([entries_of(spec, own.size, place) for place in places], dim=1)
            for places in (own.incoming, own.outgoing)
        )
        sides.append((incoming, outgoing))
    if not len(flat):
        return flat.clone()
    out = flat.to(torch.float64, copy=True)
    for _ in range(max_sweeps):
        largest = torch.zeros((), dtype=out.dtype, device=out.device)
        for incoming, outgoing in sides:
            above, below = take(out, incoming), take(out, outgoing)
            ratio = below.norm(dim=2, keepdim=True) / above.norm(dim=2, keepdim=True)
            # 0 / 0, 0 / x and x / 0: a unit that is dead on one side has no balanced scale.
            scale = torch.where(ratio.isfinite() & (ratio > 0), ratio, 1.0).sqrt()
            _put(out, incoming, above * scale)
            _put(out, outgoing, below / scale)
            largest = torch.maximum(largest, (scale - 1).abs().max())
        if float(largest) <= tolerance:
            break
    return out.to(flat.dtype)


def _put(flat: Tensor, positions: Tensor, units: Tensor) -> None:
    flat.index_copy_(1, positions.flatten().to(flat.device), units.flatten(1))
