"""What a zoo holds, and how diverse it really is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from torch import Tensor

from hypergen._utils.errors import SpecError, UsageError
from hypergen._utils.progress import progress
from hypergen.specs import LoRASpec
from hypergen.zoo.looking import summary
from hypergen.zoo.looking.distances import (
    Measured,
    measure,
    nearest,
    products_of,
    project,
    squared_distances,
)
from hypergen.zoo.looking.records import ArchitectureInfo, Points, ZooInfo
from hypergen.zoo.looking.sample import affordable, choose, runs_of
from hypergen.zoo.looking.verdict import judge
from hypergen.zoo.store import Zoo
from hypergen.zoo.store.paths import part_numbers

LIMIT = 1024  # checkpoints of an architecture that are compared with each other
_ALIGNED = 256  # runs that are aligned
_ALIGNED_NUMBERS = 1 << 25


def describe(zoo: Zoo, *, limit: int = LIMIT, seed: int = 0) -> ZooInfo:
    """Counts what a zoo holds and measures how far apart its checkpoints lie.

    Counts and metrics cover all checkpoints. Norms, distances and the map cover up to `limit` of
    each architecture, fewer if they are large; the choice is the same at every call.

    Args:
        zoo: Any zoo or view; it may be empty.
        limit: Most checkpoints of an architecture that are compared, at least 4.
        seed: Of the choice.

    Raises:
        UsageError: The limit is too small.
        RunError: A shard is damaged.
    """
    if limit < 4:
        raise UsageError(f"at least 4 checkpoints must be compared, not {limit}")
    infos = {}
    for key in progress(list(zoo.architectures), desc="looking", unit="architecture"):
        infos[key] = _describe_one(zoo.select(architecture=key), key, limit, seed)
    used = Counter(row.task for row in zoo.rows if row.task)
    families = {zoo.tasks[task].family or task for task in used if task in zoo.tasks}
    return ZooInfo(
        name=zoo.header.name,
        licence=zoo.header.licence,
        provenance=zoo.header.provenance,
        parts={"there": len(part_numbers(zoo.folder)), "announced": zoo.header.parts},
        checkpoints=len(zoo),
        runs=len({row.run for row in zoo.rows}),
        tasks={task: used.get(task, 0) for task in zoo.tasks},
        families=len(families),
        steps=summary.steps(zoo),
        hyperparameters=summary.hyperparameters(zoo.rows),
        metrics=summary.metrics(zoo.select(step="last")),
        quarantined=dict(sorted(Counter(row.quarantined for row in zoo.quarantined).items())),
        duplicates=summary.duplicates(zoo.rows),
        architectures=infos,
        limit=limit,
        seed=seed,
    )


def _describe_one(zoo: Zoo, key: str, limit: int, seed: int) -> ArchitectureInfo:
    spec, ends = zoo.spec, zoo.select(step="last")
    chosen = choose(zoo, affordable(spec, limit), seed)
    some = zoo[chosen]
    found = measure(zoo, chosen)
    by_run = runs_of(some)
    last = torch.zeros(len(some), dtype=torch.bool)
    last[[rows[-1] for rows in by_run.values()]] = True
    points = _points(some, found, by_run, last)
    norm = float(found.norms[last].square().mean().sqrt())
    within, between, aligned = (
        summary.distribution(x) for x in (points.within, points.between, points.aligned)
    )
    runs = len({row.run for row in zoo.rows})
    diversity, verdict = judge(
        len(zoo),
        runs,
        norm,
        within=within.get("median"),
        farthest=float(squared_distances(found.products).max().sqrt()),
        between=between.get("median"),
        aligned=aligned.get("median"),
    )
    slot_norms = found.slot_norms[last]
    ratio = between["median"] / within["median"] if between and within.get("median") else None
    return ArchitectureInfo(
        key=key,
        config=zoo.architecture.config,
        numel=spec.numel,
        slots=len(spec),
        dtype=str(spec.dtype).removeprefix("torch."),
        checkpoints=len(zoo),
        runs=runs,
        metrics=summary.metrics(ends),
        compared=len(some),
        compared_runs=len(by_run),
        compares="updates" if isinstance(spec, LoRASpec) else "weights",
        norm=norm,
        slot_norms=[
            {
                "slot": slot.name,
                "shape": list(slot.shape),
                "role": slot.role,
                "mean": float(values.mean()),
                "sd": float(values.std(correction=0)),
            }
            for slot, values in zip(spec, slot_norms.T, strict=True)
        ],
        within=within,
        between=between,
        aligned=aligned,
        ratio=ratio,
        same_task=_same_task(some, found, last),
        diversity=diversity,
        verdict=verdict,
        points=points,
    )


def _points(
    zoo: Zoo, found: Measured, by_run: dict[str, list[int]], last: Tensor, paths: int = 8
) -> Points:
    squared = squared_distances(found.products)
    number = {run: i for i, run in enumerate(by_run)}
    runs = torch.tensor([number[row.run] for row in zoo.rows])
    ends = last.nonzero().flatten()
    within, _ = nearest(squared, runs, inside=True)
    between, _ = nearest(squared[ends][:, ends], runs[ends], inside=False)
    # One run's last checkpoint spans no map: its whole path does.
    xy, shares = project(found.products, ends if len(ends) > 2 else torch.arange(len(zoo)))
    long = {run: rows for run, rows in by_run.items() if len(rows) > 1}
    # The longest ones; among equals those that come first.
    picked = dict(sorted(long.items(), key=lambda item: -len(item[1]))[:paths])
    on_paths = torch.tensor(sorted(i for rows in picked.values() for i in rows), dtype=torch.long)
    path_xy, path_shares = torch.zeros_like(xy), torch.zeros_like(shares)
    if len(on_paths):
        path_xy, path_shares = project(found.products, on_paths)
    return Points(
        rows=zoo.rows,
        last=last,
        xy=xy,
        shares=shares,
        paths=picked,
        path_xy=path_xy,
        path_shares=path_shares,
        within=within,
        between=between,
        aligned=_aligned(zoo[ends]),
    )


def _aligned(zoo: Zoo) -> Tensor:
    """Distance to the nearest other one of these, up to permutations of hidden units.

    All are aligned to one reference, which finds the neighbour; then each to its neighbour. Where
    the units as they are fit better, they stay: alignment never makes a distance larger.

    Empty where no symmetry is known, or where LoRAs are compared by their updates, which do not
    depend on the order of the rank components.
    """
    from hypergen.zoo.canonical import align, canonicalize, symmetry_of

    none = torch.empty(0, dtype=torch.float64)
    if isinstance(zoo.spec, LoRASpec) or len(zoo) < 2:
        return none
    try:
        symmetry = symmetry_of(zoo.spec, zoo.architecture.config)
    except (UsageError, SpecError):
        return none  # imported weights, or a network that only others know
    count = min(_ALIGNED, _ALIGNED_NUMBERS // zoo.spec.numel)
    if not symmetry.groups or count < 2:
        return none
    # Evenly spread over the runs, and always the same ones.
    places = np.unique(np.linspace(0, len(zoo) - 1, min(count, len(zoo))).round().astype(int))
    flat = zoo.flat(places).to(torch.promote_types(zoo.spec.dtype, torch.float32))
    ordered = canonicalize(flat, symmetry)
    squared = squared_distances(products_of(flat))
    squared = torch.minimum(squared, squared_distances(products_of(ordered)))
    found, neighbours = nearest(squared, torch.arange(len(flat)), inside=False)
    moved = align(ordered, ordered[neighbours], symmetry)
    direct = torch.linalg.vector_norm((moved - ordered[neighbours]).double(), dim=1)
    return torch.minimum(found, direct)


def _same_task(zoo: Zoo, found: Measured, last: Tensor) -> dict[str, float]:
    """How often the nearest run has the same task; empty without several tasks and repeats."""
    ends = last.nonzero().flatten()
    tasks = [zoo.rows[i].task for i in ends.tolist()]
    counts = Counter(tasks)
    if "" in counts or len(counts) < 2 or len(counts) == len(tasks):
        return {}
    squared = squared_distances(found.products[ends][:, ends])
    _, neighbours = nearest(squared, torch.arange(len(ends)), inside=False)
    share = np.mean([tasks[i] == tasks[j] for i, j in enumerate(neighbours.tolist())])
    pairs = len(tasks) * (len(tasks) - 1)
    return {"share": float(share), "chance": sum(n * (n - 1) for n in counts.values()) / pairs}
