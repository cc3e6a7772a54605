"""Learning-rate schedules: the share of the peak learning rate at every step."""

from __future__ import annotations

import math
from typing import Literal, get_args

from hypergen._utils.errors import UsageError, did_you_mean

Schedule = Literal["constant", "cosine", "one-cycle"]

_RISE = 0.3  # share of the steps in which one-cycle rises, where no warmup is given
_START, _END = 1 / 25, 1e-4 / 25


def schedule_factors(schedule: Schedule, steps: int, warmup: float | None = None) -> list[float]:
    """Shares of the peak learning rate.

    * `constant`: 1, after a linear warmup.
    * `cosine`: from 1 to 0 along half a cosine (Loshchilov and Hutter, "SGDR", ICLR 2017,
      arXiv:1608.03983), after a linear warmup.
    * `one-cycle`: from 1/25 up to 1 and down to 1/250000 along two half cosines (Smith and Topin,
      "Super-Convergence", arXiv:1708.07120), the momentum left as it is.

    Args:
        schedule: Its name.
        steps: Number of steps.
        warmup: Share of the steps in which the rate rises; by default none, and 0.3 for one-cycle.

    Returns:
        One number a step.

    Raises:
        UsageError: An unknown schedule, or a warmup outside [0, 1).
    """
    if schedule not in get_args(Schedule):
        raise UsageError(f"no schedule {schedule!r}.{did_you_mean(schedule, get_args(Schedule))}")
    if warmup is not None and not 0 <= warmup < 1:
        raise UsageError(f"warmup is a share of the steps in [0, 1), not {warmup}")
    share = warmup if warmup is not None else (_RISE if schedule == "one-cycle" else 0.0)
    rise = share * steps
    factors = []
    for step in range(steps):
        rest = (step - rise) / max(steps - rise, 1e-9)
        if schedule == "one-cycle":
            if step < rise:
                factors.append(_between(_START, 1.0, step / rise))
            else:
                factors.append(_between(1.0, _END, rest))
        elif step < rise:
            factors.append((step + 1) / (math.floor(rise) + 1))
        else:
            factors.append(_between(1.0, 0.0, rest) if schedule == "cosine" else 1.0)
    return factors


def _between(start: float, end: float, share: float) -> float:
    """Half a cosine from one value to another."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
