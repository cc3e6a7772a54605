"""How large generated weights are at the start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from hypergen._utils.errors import SpecError
from hypergen.specs import Slot, WeightSpec

HeadInit = Literal["theta0", "forward", "hyperfan_in", "hyperfan_out"]


def check_init(init: str) -> None:
    """Raises SpecError on an unknown head initialisation."""
    if init not in get_args(HeadInit):
        raise SpecError(f"init {init!r} is not one of {', '.join(get_args(HeadInit))}")


def start_offset(spec: WeightSpec, init: HeadInit, seed: int = 0) -> Tensor:
    """θ0 `[numel]`, what a head emits when its own output is zero.

    With `"theta0"` it is one network's start (Ortiz et al., arXiv:2304.07645; T2L's bias
    hyper-init), so that every condition starts from a well-scaled network, or, for additive specs,
    from the unchanged base. With the others it is the mean, and the head brings the variance; slots
    that no chance is part of (`std == 0`) start as they do in that one network.
    """
    start = spec.initial(seed)
    if init == "theta0":
        return start
    return torch.where(spec.per_entry("std") == 0, start, spec.per_entry("mean"))


def head_std(slot: Slot, init: HeadInit, features: int, relu: bool = True) -> float:
    """Standard deviation of the rows of a head that emits one slot.

    Features are taken to have mean square 1. Slots with `std == 0` start constant: 0.

    - `"theta0"`: 0, the offset is the start.
    - `"forward"`: 1/sqrt(features); the output is scaled by the slot's std in the forward pass.
    - `"hyperfan_in"`, `"hyperfan_out"`: Chang, Flokas and Lipson, "Principled Weight
      Initialization for Hypernetworks", ICLR 2020: activations (or gradients) of the generated
      network keep their variance.

    Args:
        slot: The slot.
        init: Which one.
        features: Number of features d_k that one output sums over.
        relu: Whether the generated network rectifies (c = 2) or not (c = 1).
    """
    if init == "theta0" or slot.std == 0:
        return 0.0
    if init == "forward":
        return 1 / math.sqrt(features)
    gain = 2.0 if relu else 1.0
    fan = slot.fan_in if init == "hyperfan_in" else slot.fan_out
    if fan is None or slot.role != "weight":  # a lookup sums over nothing: an embedding's own std
        return slot.std / math.sqrt(features)
    return math.sqrt(gain / (fan * features))


def output_scale(slot: Slot, init: HeadInit) -> float:
    """Factor of a head's output: unit-scale numbers in, numbers of the slot's size out."""
    if init.startswith("hyperfan"):
        return 1.0
    if init == "forward" and slot.std > 0:
        return slot.std
    return slot.scale


def group_stds(slots: Sequence[Slot], init: HeadInit, features: int) -> tuple[float, list[float]]:
    """Start of a head that several slots share.

    Returns:
        Standard deviation of the head, the largest of the slots', and the factor of each slot's
        output: its `output_scale`, reduced where its own standard deviation is smaller.
    """
    stds = [head_std(slot, init, features) for slot in slots]
    most = max(stds)
    scales = [output_scale(slot, init) for slot in slots]
    return most, [c * (s / most if most else 1.0) for c, s in zip(scales, stds, strict=True)]


def normal_rows(stds: Tensor, features: int, generator: torch.Generator | None = None) -> Tensor:
    """`[rows, features]` of normal numbers, row i with standard deviation `stds[i]`."""
    return torch.randn(len(stds), features, generator=generator) * stds[:, None]
