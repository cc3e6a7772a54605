"""The memorisation audit: are sampled weights new, or copies, or what averaging gives?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.progress import progress
from hypergen.evaluation.audit.baselines import NOISE, Baseline, make_baselines
from hypergen.evaluation.audit.frontier import Cloud, Dominated, find_dominated
from hypergen.evaluation.audit.geometry import Geometry, measure
from hypergen.evaluation.audit.overlap import Overlap, compare, largest_overlap
from hypergen.evaluation.audit.records import Behaviour, Judge, Networks, check
from hypergen.evaluation.audit.resample import Resampler
from hypergen.evaluation.audit.result import Audit
from hypergen.evaluation.audit.space import FlatSpace, Mapped, Space, make_spaces
from hypergen.evaluation.audit.verdict import Quality, judge
from hypergen.specs import WeightSpec

CHECKPOINTS = 2048  # most training networks that are compared
BASELINES = 64  # networks of each baseline


def audit(
    spec: WeightSpec,
    samples: Networks,
    training: Networks,
    heldout: Networks,
    *,
    judge_by: Judge | None = None,
    config: Mapping[str, Any] | None = None,
    similarity: Tensor | None = None,
    reconstruct: Callable[[Tensor], Tensor] | None = None,
    controls: Mapping[str, Tensor] | None = None,
    tasks_matter: bool = False,
    checkpoints: int = CHECKPOINTS,
    baselines: int = BASELINES,
    resamples: int = 1000,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Audit:
    """Compares sampled weights with training networks, held-out networks and baselines.

    After Zeng et al., "Generative Modeling of Weights: Generalization or Memorization?", 2025,
    arXiv:2506.07998, with held-out networks as the reference of every number: distances to the
    nearest training network, a copy test, wrong predictions at equal accuracy, accuracy against
    novelty beside baselines, mixtures, coverage and diversity; as the weights are, and in a
    canonical form in which hidden units are matched and scales are balanced. The rules of the
    verdict are in `hypergen.evaluation.audit.verdict`.

    Args:
        spec: The weights.
        samples: At least 8 generated networks; `groups` are their conditions.
        training: What the generator was trained on: at least 8 runs.
        heldout: Networks of other runs, at least 4 of them; nothing of the generator may depend on
            them.
        judge_by: Scores networks; without it only weights are compared.
        config: Description of the architecture, from which its symmetry follows.
        similarity: `[S, T]`, likeness of the samples' conditions to those of the training networks,
            if the generator has conditions.
        reconstruct: The generator's autoencoder, `[N, numel]` → `[N, numel]`.
        controls: Name (`"shuffled"`, `"dropped"`) → `[S, numel]`, samples of the same tasks from
            a wrong condition, or from none.
        tasks_matter: Whether each network is for the task that it says, as with conditions.
            Otherwise it is scored on the task that it does best.
        checkpoints: Most training networks that are compared; whole runs are drawn if there are
            more.
        baselines: Networks of each baseline.
        resamples: Bootstrap resamples.
        seed: Seed of all draws.
        settings: What else to note in the result.

    Returns:
        The audit.

    Raises:
        UsageError: Too few runs or samples, shared runs, or a training zoo of copies.
        WeightsError: Weights that do not fit, or hold NaN or infinity.
    """
    start = time.monotonic()
    check(samples, training, heldout)
    full = len(training)
    kept = training.cut(checkpoints, seed, "checkpoints")
    training = training[kept]
    similarity = None if similarity is None else similarity[:, kept]
    if len(heldout) > len(training):
        heldout = heldout[heldout.cut(len(training), seed, "heldout networks")]
    resampler = Resampler(seed, resamples)
    spaces = make_spaces(spec, training.flat, config)
    stages = progress(total=len(spaces) + (2 if judge_by else 0), desc="audit", unit=" stages")
    geometries: dict[str, Geometry] = {}
    mapped: dict[str, Mapped] = {}
    for space in spaces:
        own = mapped[space.name] = Mapped.of(space, samples, training, heldout)
        before = next(iter(geometries.values()), None)
        found = measure(space, samples, training, heldout, resampler, own, before)
        if math.isnan(found.scale):
            raise UsageError(
                f"{found.duplicates} of {len(training)} training checkpoints equal one of another "
                "run: distances to such a zoo say nothing; remove duplicates first"
            )
        geometries[space.name] = found
        stages.update(1)
    behaviour: dict[str, Behaviour] = {}
    overlap: Overlap | None = None
    clouds: list[Cloud] = []
    dominated: dict[str, Dominated] = {}
    quality: Quality | None = None
    scores: dict[str, Tensor] = {}
    if judge_by is not None:
        for name, part in (("samples", samples), ("training", training), ("heldout", heldout)):
            own_tasks = part.tasks if tasks_matter else None
            behaviour[name] = judge_by.score(part.flat, own_tasks, name == "samples")
        for name, flat in (controls or {}).items():
            scores[name] = judge_by.score(flat, samples.tasks, True).quality
        stages.update(1)
        if judge_by.answers is not None:
            overlap = compare(
                behaviour["samples"],
                behaviour["training"],
                behaviour["heldout"],
                (samples, heldout),
                judge_by.answers,
                resampler,
            )
        made = _baselines(
            spec, samples, training, spaces, baselines, similarity, tasks_matter, reconstruct, seed
        )
        clouds = _clouds(
            made, spaces, mapped, geometries, behaviour, judge_by, overlap, tasks_matter
        )
        # Without conditions, a baseline's networks are for the tasks of their own checkpoints.
        same_task = tasks_matter and similarity is not None
        dominated = _dominated(clouds, samples, heldout, resampler, same_task)
        quality = _quality(behaviour, clouds, judge_by.quality)
        stages.update(1)
    stages.close()
    scores = {name: b.quality for name, b in behaviour.items()} | scores
    counts = {
        "samples": len(samples),
        "training": len(training),
        "training_runs": training.runs,
        "training_of": full,
        "heldout": len(heldout),
        "heldout_runs": heldout.runs,
    }
    return Audit(
        verdict=judge(geometries, dominated, overlap, quality),
        spaces=geometries,
        overlap=overlap,
        dominated=dominated,
        clouds=clouds,
        quality=scores,
        quality_name=judge_by.quality if judge_by else "",
        counts=counts,
        settings={**(settings or {}), "seed": seed, "resamples": resamples},
        seconds=time.monotonic() - start,
    )


def _baselines(
    spec: WeightSpec,
    samples: Networks,
    training: Networks,
    spaces: list[Space],
    count: int,
    similarity: Tensor | None,
    tasks_matter: bool,
    reconstruct: Callable[[Tensor], Tensor] | None,
    seed: int,
) -> list[Baseline]:
    canonical = next((s for s in spaces if isinstance(s, FlatSpace) and s.symmetry), None)
    own, tasks = None, None
    if similarity is not None:
        # One condition of each task, as many as are asked for, from all over the list.
        first = torch.unique(samples.tasks, return_inverse=True)[1]
        rows = torch.stack([(first == t).nonzero()[0, 0] for t in range(int(first.max()) + 1)])
        if len(rows) < count:
            rest = torch.arange(len(samples))
            rows = torch.cat([rows, rest[~torch.isin(rest, rows)]])
        rows = rows[:: max(1, len(rows) // count)][:count]
        own = similarity[rows]
        tasks = samples.tasks[rows] if tasks_matter else None
    return make_baselines(
        spec,
        training,
        count=count,
        seed=seed,
        similarity=own,
        tasks=tasks,
        canonical=None if canonical is None else canonical.canonical,
        reconstruct=reconstruct,
    )


def _clouds(
    made: list[Baseline],
    spaces: list[Space],
    mapped: dict[str, Mapped],
    geometries: dict[str, Geometry],
    behaviour: dict[str, Behaviour],
    judge_by: Judge,
    overlap: Overlap | None,
    tasks_matter: bool,
) -> list[Cloud]:
    """Samples, held-out networks and baselines as points; baselines in one stacked call."""
    labels = {"samples": "samples", "heldout": "real held-out networks"}
    clouds = []
    for name, label in labels.items():
        novelty = {s: g.novelty[name] for s, g in geometries.items()}
        if overlap is not None:
            novelty["behaviour"] = 1 - overlap.values[name]
        b = behaviour[name]
        clouds.append(Cloud(name, label, b.quality, novelty, b.tasks))
    flat = torch.cat([b.flat for b in made])
    tasks = torch.cat([b.tasks for b in made])
    scored = judge_by.score(flat, tasks if tasks_matter else None, True)
    novelty, hints = {}, None
    for space in spaces:
        own, there = space.map(flat), mapped[space.name].training
        found = space.refine(own, there, space.distances(own, there), hints).min(1)
        novelty[space.name], hints = found.values / geometries[space.name].scale, found.indices
    theirs = behaviour["training"].predictions
    if overlap is not None and scored.predictions is not None and theirs is not None:
        assert judge_by.answers is not None
        largest = largest_overlap(scored.predictions, scored.tasks, theirs, judge_by.answers)
        novelty["behaviour"] = 1 - largest.double()
    sizes = [len(b.flat) for b in made]
    for i, part in enumerate(torch.arange(len(flat)).split(sizes)):
        clouds.append(
            Cloud(
                made[i].kind,
                made[i].label,
                # Networks that put out NaN are worse than any other.
                scored.quality[part].nan_to_num(nan=-math.inf),
                {axis: values[part] for axis, values in novelty.items()},
                scored.tasks[part],
            )
        )
    return clouds


def _dominated(
    clouds: list[Cloud],
    samples: Networks,
    heldout: Networks,
    resampler: Resampler,
    same_task: bool,
) -> dict[str, Dominated]:
    ours, theirs, *baselines = clouds
    weights = (
        resampler.weights(samples.groups, "samples"),
        resampler.weights(heldout.groups, "heldout"),
    )
    ours = replace(ours, quality=ours.quality.nan_to_num(nan=-math.inf))
    return {
        axis: find_dominated(ours, theirs, baselines, axis, weights, resampler, same_task)
        for axis in ours.novelty
    }


def _quality(behaviour: dict[str, Behaviour], clouds: list[Cloud], name: str) -> Quality:
    strongest = next(c for c in clouds if c.kind == f"noise_{max(NOISE):g}")
    # Not a number is worse than any: the median is not one only if half of the samples are not.
    middle = float(behaviour["samples"].quality.nan_to_num(nan=-math.inf).median())
    return Quality(
        median=math.nan if middle == -math.inf else middle,
        low=float(behaviour["heldout"].quality.double().quantile(0.05)),
        floor=float(strongest.quality.median()),
        name=name,
    )
