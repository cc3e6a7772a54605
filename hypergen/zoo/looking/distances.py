"""Distances between checkpoints, all pairs at once by matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hypergen.specs import LoRASpec
from hypergen.zoo.store import Zoo

_NUMBERS = 1 << 23  # numbers in float64 that a step of the products holds
_STRIP = 1 << 10  # columns that are read at a time, at least


@dataclass(frozen=True)
class Measured:
    """What one pass over some checkpoints gives.

    Attributes:
        products: `[N, N]` inner products in float64, of weights from which one common vector was
            subtracted (which changes no distance), or of LoRA updates.
        norms: `[N]`, Euclidean norm of the weights, or of the LoRA update.
        slot_norms: `[N, slots]`, norm of each slot.
    """

    products: Tensor
    norms: Tensor
    slot_norms: Tensor


def measure(zoo: Zoo, rows: Sequence[int]) -> Measured:
    """Compares checkpoints of one architecture.

    The numbers are read once, in strips of columns, and multiplied in float64: neighbours of a
    trajectory can differ by less than float32 products resolve.

    LoRAs are compared by their updates ΔW: many factors give one update.

    Args:
        zoo: Checkpoints of one architecture.
        rows: Positions of those to compare.
    """
    spec, wanted = zoo.spec, np.asarray(rows, dtype=np.int64)
    squares = torch.zeros(len(wanted), len(spec), dtype=torch.float64)
    products = torch.zeros(len(wanted), len(wanted), dtype=torch.float64)
    is_lora = isinstance(spec, LoRASpec)
    ends = np.cumsum([slot.numel for slot in spec])
    strip = max(_STRIP, _NUMBERS // max(1, len(wanted)))
    for start in range(0, spec.numel, strip):
        stop = min(start + strip, spec.numel)
        x = zoo.spans(wanted, np.full(len(wanted), start), stop - start).double()
        first, last = (int(np.searchsorted(ends, i, side="right")) for i in (start, stop - 1))
        for slot in range(first, last + 1):
            low = max(start, int(ends[slot]) - spec.slots[slot].numel) - start
            squares[:, slot] += x[:, low : int(ends[slot]) - start].square().sum(1)
        if not is_lora:
            x -= x.mean(0)
            products.addmm_(x, x.T)
    norms = squares.sum(1).sqrt()
    if isinstance(spec, LoRASpec):
        products = update_products(zoo, wanted)
        norms = products.diagonal().clamp(min=0).sqrt()
    return Measured(products, norms, squares.sqrt())


def update_products(zoo: Zoo, rows: Sequence[int] | np.ndarray) -> Tensor:
    """`[N, N]` inner products of LoRA updates, without forming one.

    Same as `hypergen.specs.gram` of every pair, summed over the modules, but by two matrix
    products for each module instead of one for each pair.
    """
    spec = zoo.spec
    assert isinstance(spec, LoRASpec)
    count = len(rows)
    wanted = np.asarray(rows, dtype=np.int64)
    total = torch.zeros(count, count, dtype=torch.float64)
    for module in spec.modules:
        name_a, name_b = spec.pair_names(module)
        r = spec.rank(module)
        a = zoo.slot(name_a, wanted).double().flatten(0, 1)  # [N r, in]
        b = zoo.slot(name_b, wanted).double().mT.flatten(0, 1)  # [N r, out]
        b = b * spec.scaling(module)
        step = max(1, _NUMBERS // (count * r * r))
        for i in range(0, count, step):
            part = slice(i * r, (i + step) * r)
            pairs = (a[part] @ a.T).mul_(b[part] @ b.T)
            total[i : i + step] += pairs.unflatten(0, (-1, r)).unflatten(2, (-1, r)).sum((1, 3))
    return total


def products_of(flat: Tensor) -> Tensor:
    """`[N, N]` inner products of rows `[N, numel]` less their mean, in float64."""
    out = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for strip in flat.split(max(_STRIP, _NUMBERS // max(1, len(flat))), dim=1):
        x = strip.double()
        x = x - x.mean(0)
        out.addmm_(x, x.T)
    return out


def squared_distances(products: Tensor) -> Tensor:
    """`[N, N]` squared distances from inner products, never negative."""
    own = products.diagonal()
    return (own[:, None] + own[None] - 2 * products).clamp_(min=0)


def nearest(squared: Tensor, groups: Tensor, *, inside: bool) -> tuple[Tensor, Tensor]:
    """Distance to the nearest other one of the same group, or of another group.

    Args:
        squared: `[N, N]` squared distances.
        groups: `[N]` number of the group of each.
        inside: Whether to look in the same group, or in the others.

    Returns:
        Distances, and positions of the nearest, for those of the N that have one.
    """
    same = groups[:, None] == groups[None]
    allowed = same if inside else ~same
    allowed = allowed & ~torch.eye(len(groups), dtype=torch.bool)
    some = allowed.any(1)
    if not bool(some.any()):
        return squared.new_empty(0), groups.new_empty(0)
    found = squared.masked_fill(~allowed, torch.inf)[some].min(1)
    return found.values.sqrt(), found.indices


def project(products: Tensor, fit: Tensor) -> tuple[Tensor, Tensor]:
    """Principal components of some rows, and where all rows lie along the first two.

    From inner products alone (Schölkopf et al., "Nonlinear Component Analysis as a Kernel
    Eigenvalue Problem", 1998, with the linear kernel): rows may be far longer than many.

    Args:
        products: `[N, N]` inner products.
        fit: Positions of the rows that define the components.

    Returns:
        `[N, 2]` coordinates, and `[2]` the share of the variance of the fitted rows that each
        axis shows. Axes that do not exist are zero.
    """
    inner = products[fit][:, fit]
    means, mean = inner.mean(1), inner.mean()
    centred = inner - means[:, None] - means[None] + mean
    values, vectors = torch.linalg.eigh((centred + centred.T) / 2)
    values, vectors = values.flip(0)[:2].clamp(min=0), vectors.flip(1)[:, :2]
    across = products[:, fit]
    across = across - across.mean(1, keepdim=True) - means[None] + mean
    # The sign of an eigenvector means nothing: the largest entry is made positive.
    signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    total = centred.diagonal().sum().clamp(min=1e-300)
    real = values > 1e-12 * total
    scale = torch.where(real, values, 1.0).rsqrt() * real
    xy = across @ (vectors * signs) * scale
    pad = 2 - xy.shape[1]
    share = values / total
    return torch.nn.functional.pad(xy, (0, pad)), torch.nn.functional.pad(share, (0, pad))
