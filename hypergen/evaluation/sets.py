"""Sets of generated things beside sets of real ones: fidelity, coverage and difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.seeding import generator as seeded
from hypergen.evaluation.bootstrap import Bootstrap, Interval, Scores
from hypergen.evaluation.table import aligned
from hypergen.zoo.ensemble.evaluate import run_stack
from hypergen.zoo.networks import Network

_NUMBERS = 1 << 22  # numbers that the activations of one chunk may take, roughly
MEASURES = {
    "mmd": "minimum matching distance",
    "coverage": "coverage",
    "1-nna": "1-nearest-neighbour accuracy",
}


# -- images of networks ------------------------------------------------------------------------


@torch.no_grad()
def decode_images(network: Network, flat: Tensor, height: int, width: int) -> Tensor:
    """Reads images off networks that map the coordinates of pixels to their values.

    The centres of the pixels lie in [-1, 1]², as `hypergen.zoo.ensemble.ImageFit` trains them; a
    network can be read at any resolution.

    Args:
        network: The architecture, with two inputs (row, column), such as `SIREN`.
        flat: `[N, numel]`.
        height: Pixels.
        width: Pixels.

    Returns:
        `[N, height, width, channels]`.

    Raises:
        UsageError: The network does not take two coordinates.
    """
    inputs = getattr(network, "inputs", None)
    if inputs != 2:
        raise UsageError(
            f"{network!r} takes {inputs} inputs: images are read off networks of two coordinates"
        )
    axes = [(torch.arange(n, device=flat.device) + 0.5) / n * 2 - 1 for n in (height, width)]
    grid = torch.cartesian_prod(*axes)
    module, spec = network.module().eval().to(flat.device), network.spec()
    widest = max(slot.shape[0] for slot in spec)
    rows = max(1, _NUMBERS // (widest * len(grid)))
    parts = []
    for part in flat.float().split(rows):
        named = spec.from_flat(part).named()
        parts.append(run_stack(module, named, grid, len(part)))
    return torch.cat(parts).unflatten(1, (height, width))


# -- distances ---------------------------------------------------------------------------------


def mean_squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """`[N, M]`, mean squared difference of `a` `[N, …]` and `b` `[M, …]`; exactly 0 of equals."""
    a, b = a.flatten(1), b.flatten(1)
    # Without inner products, whose rounding would make neighbours of equal things strangers.
    distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.square() / a.shape[1]


def minimum_matching_distance(generated_to_reference: Tensor) -> Tensor:
    """Distance of each reference to the nearest generated thing, `[R]`; its mean is the measure.

    Achlioptas et al., "Learning Representations and Generative Models for 3D Point Clouds", ICML
    2018, arXiv:1707.02392. Small where everything real is approximated by something generated.

    Args:
        generated_to_reference: `[G, R]` distances.
    """
    return generated_to_reference.amin(0)


def coverage(generated_to_reference: Tensor) -> Tensor:
    """Whether each reference is the nearest one of something generated, `[R]` of 0 and 1.

    The mean is the coverage (Achlioptas et al., 2018): low where samples repeat themselves. Bad
    samples can cover too, so it is read beside the minimum matching distance.

    Args:
        generated_to_reference: `[G, R]` distances.
    """
    covered = torch.zeros(generated_to_reference.shape[1], device=generated_to_reference.device)
    return covered.index_fill(0, generated_to_reference.argmin(1), 1.0)


def nearest_neighbour_accuracy(
    among_generated: Tensor, generated_to_reference: Tensor, among_reference: Tensor
) -> Tensor:
    """Whether the nearest neighbour of each thing is of its own set, `[G + R]` of 0 and 1.

    The mean is the leave-one-out accuracy of telling the two sets apart by the nearest neighbour
    (Lopez-Paz and Oquab, ICLR 2017, arXiv:1610.06545; Yang et al., "PointFlow", ICCV 2019,
    arXiv:1906.12320): 0.5 for two sets of one distribution and one size, 1 for sets that have
    nothing to do with each other, and below 0.5 where generated things are copies of the reference.

    Args:
        among_generated: `[G, G]` distances.
        generated_to_reference: `[G, R]` distances.
        among_reference: `[R, R]` distances.
    """
    count = len(among_generated)
    top = torch.cat([among_generated, generated_to_reference], dim=1)
    whole = torch.cat([top, torch.cat([generated_to_reference.T, among_reference], dim=1)])
    whole = whole.fill_diagonal_(torch.inf)
    is_generated = torch.arange(len(whole), device=whole.device) < count
    return (is_generated[whole.argmin(1)] == is_generated).float()


# -- comparison --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SetComparison:
    """Measures of several sets against one reference.

    Attributes:
        values: Set → measure (`mmd`, `coverage`, `1-nna`) → mean.
        ci: Set → measure → interval of that mean, with both sets as they are.
        size: Number of things of each set, and of the reference.
    """

    values: dict[str, dict[str, float]]
    ci: dict[str, dict[str, Interval]]
    size: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        intervals = {
            name: {measure: list(interval) for measure, interval in own.items()}
            for name, own in self.ci.items()
        }
        return {"values": self.values, "ci": intervals, "size": self.size}

    def to_table(self) -> str:
        """A row for each set."""
        rows = [["set", *(cell for label in MEASURES.values() for cell in (label, "95% CI"))]]
        for name, own in self.values.items():
            cells = [name]
            for measure in MEASURES:
                low, high = self.ci[name][measure]
                cells += [f"{own[measure]:.4f}", f"{low:.4f} to {high:.4f}"]
            rows.append(cells)
        note = f"{self.size} of each set against {self.size} held-out ones; 0.5 is the best 1-NNA"
        return "\n".join([*aligned(rows), note])


def compare_sets(
    sets: Mapping[str, Tensor], reference: Tensor, *, resamples: int = 2000, seed: int = 0
) -> SetComparison:
    """Compares sets with a reference by mean squared distances.

    All are cut to one size, at random: the measures depend on it, and 1-NNA means something for
    equal sizes only. Put a set of real things that are not the reference among them: what it
    reaches is what can be reached.

    Args:
        sets: Name → `[N, …]`.
        reference: `[R, …]`, real things that no generator has seen.
        resamples: Resamples of the bootstrap over things.
        seed: Seed of both.

    Raises:
        UsageError: A set has fewer than two things, or things of another shape.
    """
    for name, things in {**sets, "reference": reference}.items():
        if len(things) < 2 or things.shape[1:] != reference.shape[1:]:
            raise UsageError(
                f"the set {name!r} has shape {list(things.shape)}; sets hold at least two things "
                f"of the reference's shape {list(reference.shape[1:])}"
            )
    size = min(len(reference), *(len(things) for things in sets.values()))

    def pick(name: str, things: Tensor) -> Tensor:
        order = torch.randperm(len(things), generator=seeded("set", seed, name))[:size]
        return things[order.to(things.device)].float()

    real = pick("reference", reference)
    among_real = mean_squared_distances(real, real)
    values: dict[str, dict[str, float]] = {}
    ci: dict[str, dict[str, Interval]] = {}
    for name, things in sets.items():
        own = pick(name, things)
        across = mean_squared_distances(own, real)
        found = {
            "mmd": minimum_matching_distance(across),
            "coverage": coverage(across),
            "1-nna": nearest_neighbour_accuracy(
                mean_squared_distances(own, own), across, among_real
            ),
        }
        values[name] = {measure: float(each.mean()) for measure, each in found.items()}
        ci[name] = {}
        for measure, each in found.items():
            bootstrap = Bootstrap(len(each), resamples, seed)
            ci[name][measure] = bootstrap.interval(bootstrap.means(Scores.of(each.cpu())))
    return SetComparison(values, ci, size)
