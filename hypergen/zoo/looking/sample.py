"""Which checkpoints are compared with each other, where there are too many for all of them."""

from __future__ import annotations

import math

from hypergen._utils.seeding import stable_seed
from hypergen.specs import LoRASpec, WeightSpec
from hypergen.zoo.store import Zoo

WORK = 2e11  # multiplications that the comparison of one architecture may cost
LEAST = 16  # checkpoints that are compared whatever it costs


def runs_of(zoo: Zoo) -> dict[str, list[int]]:
    """Run → positions of its checkpoints, by step."""
    found: dict[str, list[int]] = {}
    for i, row in enumerate(zoo.rows):
        found.setdefault(row.run, []).append(i)
    return {run: sorted(rows, key=lambda i: zoo.rows[i].step) for run, rows in found.items()}


def affordable(spec: WeightSpec, limit: int) -> int:
    """How many checkpoints can be compared pair by pair, at most `limit`."""
    each: float = spec.numel
    if isinstance(spec, LoRASpec):
        # Two updates are compared through r x r products.
        each = sum(
            spec.rank(module) * spec[name].numel
            for module in spec.modules
            for name in spec.pair_names(module)
        )
    return min(limit, max(LEAST, math.isqrt(int(WORK / each))))


def choose(zoo: Zoo, limit: int, seed: int = 0) -> list[int]:
    """Positions of the checkpoints to compare, in order.

    All of them if there are no more than `limit`. Otherwise the last ones of as many runs as fit
    into three quarters of it; then neighbours along the trajectories of some of these runs, without
    gaps, so that distances within a run are those of the zoo. The choice depends on the names of
    the runs and the seed alone.
    """
    if len(zoo) <= limit:
        return list(range(len(zoo)))
    by_run = runs_of(zoo)
    order = sorted(by_run, key=lambda run: (stable_seed("looking", seed, run), run))
    runs = order[: max(1, 3 * limit // 4)]
    chosen = {by_run[run][-1] for run in runs}
    several = [run for run in runs if len(by_run[run]) > 1]
    each = max(15, (limit - len(chosen)) // max(1, len(several)))
    for run in several:
        left = limit - len(chosen)
        chosen.update(by_run[run][:-1][-min(each, left) :] if left > 0 else [])
    return sorted(chosen)
