"""Draws from a kernel density estimate over latents of checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from hypergen._utils.errors import SpecError
from hypergen._utils.seeding import generator as seeded

Joint = Literal["network", "token", "entry"]
Rule = Literal["scott", "silverman"]


def draw(
    embeddings: Tensor, probability: Tensor, seeds: Sequence[int], joint: Joint
) -> tuple[Tensor, Tensor, int]:
    """Centres of kernels, and noise of unit variance, for each row by its own seed.

    Args:
        embeddings: `[N, T, D]`, the latents of the anchors.
        probability: `[B, N]` of each anchor in each row.
        seeds: `[B]`.
        joint: What shares an anchor: all of a `"network"`, a `"token"`, or nothing (`"entry"`).

    Returns:
        Centres and noise, `[B, T, D]` each, and how many numbers share an anchor.
    """
    shape = embeddings.shape[1:]
    picks = {"network": 1, "token": shape[0], "entry": shape.numel()}[joint]
    drawn = {}
    for seed in set(seeds):
        random = seeded("kde", seed)
        uniform = torch.rand(picks, generator=random, dtype=torch.float64)
        drawn[seed] = uniform, torch.randn(shape, generator=random)
    uniform, noise = (
        torch.stack([drawn[seed][i] for seed in seeds]).to(embeddings.device) for i in (0, 1)
    )
    ends = probability.double().cumsum(1)
    # Below the last end, whatever the sum rounds to; an anchor of probability 0 is never drawn.
    chosen = torch.searchsorted(ends, uniform * ends[:, -1:], right=True)
    together = shape.numel() // picks
    chosen = chosen.clamp(max=len(embeddings) - 1).repeat_interleave(together, dim=1)
    centres = embeddings.flatten(1).gather(0, chosen).unflatten(1, shape)
    return centres, noise.to(centres), together


def kernel_width(bandwidth: float | str, count: int, dimensions: int) -> float:
    """Standard deviation of a kernel in units of the spread of the data.

    Args:
        bandwidth: The number itself, or the rule of Scott ("Multivariate Density Estimation",
            1992) or of Silverman ("Density Estimation", 1986).
        count: Number of kernels.
        dimensions: How many numbers are drawn jointly.
    """
    if not isinstance(bandwidth, str):
        return float(bandwidth)
    base = count * (dimensions + 2) / 4 if bandwidth == "silverman" else count
    return float(base ** (-1 / (dimensions + 4)))


def check_options(
    bandwidth: float | str,
    joint: str,
    metric: str | None,
    best: float,
    order: str,
    most: int | None,
    nearest: int | None,
    temperature: float,
) -> None:
    """Raises SpecError on settings that are out of range."""
    if isinstance(bandwidth, str):
        if bandwidth not in get_args(Rule):
            raise SpecError(f"bandwidth is a number, scott or silverman, not {bandwidth!r}")
    elif not 0 <= bandwidth < math.inf:
        raise SpecError(f"bandwidth must not be negative, not {bandwidth}")
    if joint not in get_args(Joint):
        raise SpecError(f"joint is network, token or entry, not {joint!r}")
    if not 0 < best <= 1:
        raise SpecError(f"best is a share of the checkpoints, above 0 and up to 1, not {best}")
    if best < 1 and metric is None:
        raise SpecError("best below 1 needs metric=, such as 'val.accuracy'")
    if order not in ("high", "low"):
        raise SpecError(f"order is high or low, not {order!r}")
    if min(most or 1, nearest or 1) < 1 or most == 0 or nearest == 0 or temperature <= 0:
        raise SpecError("most, nearest and temperature must be positive")
