"""`hypergen evaluate RUN --properties ZOO`: what a run's codec knows about trained networks."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from hypergen._utils.errors import RunError, UsageError
from hypergen.evaluation.properties import (
    layer_statistics,
    pooled_embeddings,
    predict_properties,
)
from hypergen.generators import load_generator
from hypergen.generators.diffusion import WeightCodec
from hypergen.specs import LoRASpec, WeightSpec
from hypergen.zoo.canonical import canonicalize, canonicalize_lora, pick_reference, symmetry_of
from hypergen.zoo.reading import split
from hypergen.zoo.reading.record import ZooRecord, has_record
from hypergen.zoo.store import Zoo


def properties_command(args: argparse.Namespace, run: Path) -> dict[str, Any]:
    """Predicts the properties of a zoo's networks from the embeddings of a run's codec.

    Of the zoo that the run was trained on, all checkpoints of its runs are used, and its own splits
    by run: neither the codec nor the regression has seen the test runs.

    Args:
        args: `properties` (folder of the zoo), `json`; and, if it is there, `seed`.
        run: The run folder.

    Returns:
        The object of `PropertyPrediction.to_dict`.

    Raises:
        UsageError: The generator has no codec, or the zoo holds other networks or too few runs.
        RunError: The run or the zoo is missing or damaged.
    """
    generator = load_generator(run)
    codec = getattr(generator, "codec", None)
    if not isinstance(codec, WeightCodec):
        raise UsageError(
            f"--properties reads the embeddings of a codec, and {type(generator).__name__} has "
            "none: DiffusionGenerator and KDEGenerator do"
        )
    seed = getattr(args, "seed", 0)
    zoo = _of_spec(Zoo(args.properties), codec.spec)
    splits, record, note = _splits(run, zoo, seed)
    transform = None
    if record is not None and record.settings.get("canonical"):
        transform = _canonical(record.splits["train"])
    found = predict_properties(
        splits,
        {"embedding": pooled_embeddings(codec), "statistics": layer_statistics(codec.spec)},
        transform=transform,
        seed=seed,
    )
    found.notes.append(note or "the test runs are those that the generator was not trained on")
    if args.json is None:
        print(found.to_table())
    return found.to_dict()


def _of_spec(zoo: Zoo, spec: WeightSpec) -> Zoo:
    for key, architecture in zoo.architectures.items():
        if architecture.spec == spec:
            return zoo.select(architecture=key) if len(zoo.architectures) > 1 else zoo
    raise UsageError(
        f"{zoo.folder} holds networks of other shapes than the {spec.numel:,} numbers in "
        f"{len(spec)} slots that the run was trained on"
    )


def _splits(run: Path, zoo: Zoo, seed: int) -> tuple[dict[str, Zoo], ZooRecord | None, str]:
    """Views by run, the run's record of its zoo, and a note unless that is this zoo."""
    record = None
    if has_record(run):
        try:
            record = ZooRecord.load(run, zoo=zoo.folder)
        except RunError:  # some of its checkpoints are not in this zoo
            note = "the generator was trained on another zoo; the runs are split at random"
            return split(zoo, "run", seed=seed), _settings(run), note
        where = {row.run: name for name, view in record.splits.items() for row in view.rows}
        rows: dict[str, list[int]] = {name: [] for name in record.splits}
        for i, row in enumerate(zoo.rows):
            if row.run in where:
                rows[where[row.run]].append(i)
        return {name: zoo[own] for name, own in rows.items()}, record, ""
    note = "the run does not say what it was trained on: the test runs may be known to it"
    return split(zoo, "run", seed=seed), record, note


def _settings(run: Path) -> ZooRecord | None:
    try:
        return ZooRecord.load(run)
    except RunError:
        return None


def _canonical(train: Zoo) -> Callable[[Tensor], Tensor]:
    """Brings networks to the order that a run trained with `canonical` saw."""
    spec = train.spec
    if isinstance(spec, LoRASpec):
        return lambda flat: canonicalize_lora(spec.from_flat(flat)).flat()
    symmetry = symmetry_of(spec, train.architecture.config)
    flat = train.flat()
    reference = flat[pick_reference(flat, symmetry)].clone()
    return lambda flat: canonicalize(flat, symmetry, reference)
