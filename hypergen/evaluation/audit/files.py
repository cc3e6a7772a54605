"""Networks from files, whoever made them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from hypergen._utils.errors import SpecError, WeightsError
from hypergen._utils.io import load_safetensors, load_safetensors_metadata
from hypergen.specs import Weights, WeightSpec


@dataclass(frozen=True)
class Given:
    """Weights from a file.

    Attributes:
        weights: `[N]` networks.
        tasks: Names of their tasks, if the file says them (`tasks` of its provenance).
    """

    weights: Weights
    tasks: list[str] = field(default_factory=list)


def read_weights(path: str | Path, spec: WeightSpec) -> Given:
    """Reads networks from a safetensors file: one of `Weights.save`, or any other method's.

    Args:
        path: The file. Without a hypergen spec it holds one tensor for each slot, of the slot's
            name and shape `[N, *shape]`.
        spec: What the networks must be.

    Raises:
        RunError: The file is missing or damaged.
        WeightsError: It holds other slots; names the first.
    """
    path = Path(path)
    if "hypergen.spec" in load_safetensors_metadata(path):
        weights = Weights.load(path)
        check_spec(weights.spec, spec, str(path), "the zoo")
        tasks = weights.provenance.get("tasks")
        if not isinstance(tasks, list) or len(tasks) != len(weights):
            tasks = []
        return Given(spec.from_flat(weights.flat()), tasks)
    tensors = load_safetensors(path)
    try:
        count = spec.validate(tensors, finite=False)
    except (WeightsError, SpecError) as error:
        raise WeightsError(f"{path} does not hold networks of the zoo: {error}") from error
    if not count:
        raise WeightsError(f"{path} holds one network; its tensors need a first axis of networks")
    flat = torch.cat([tensors[slot.name].flatten(1).float() for slot in spec.slots], dim=1)
    return Given(spec.from_flat(flat))


def check_spec(own: WeightSpec, wanted: WeightSpec, name: str, other: str) -> None:
    """Checks that two specs have the same slots in the same order.

    Raises:
        WeightsError: They do not; names the first slot that differs.
    """
    theirs = {slot.name: slot for slot in wanted.slots}
    for slot in own.slots:
        if slot.name not in theirs:
            raise WeightsError(f"{name} has the slot {slot.name!r}, which {other} has not")
        if slot.shape != theirs[slot.name].shape:
            raise WeightsError(
                f"slot {slot.name!r} has the shape {slot.shape} in {name} and "
                f"{theirs[slot.name].shape} in {other}"
            )
    mine = set(own.names)
    for slot in wanted.slots:
        if slot.name not in mine:
            raise WeightsError(f"{other} has the slot {slot.name!r}, which {name} has not")
    if own.names != wanted.names:
        raise WeightsError(f"the slots of {name} and {other} are in different orders")
