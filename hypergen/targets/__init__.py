"""Frozen networks that receive weights: differentiable calls, a network for each sample."""

from torch import nn

from hypergen._utils.errors import SpecError
from hypergen.specs import (
    AdapterSpec,
    DeltaSpec,
    FullSpec,
    LoRASpec,
    PeftSpec,
    PrefixSpec,
    WeightSpec,
)
from hypergen.targets.adapter import AdapterTarget
from hypergen.targets.base import Target
from hypergen.targets.functional import FunctionalTarget
from hypergen.targets.lora import LoRATarget
from hypergen.targets.peft import PeftTarget
from hypergen.targets.prefix import PrefixTarget

__all__ = [
    "AdapterTarget",
    "FunctionalTarget",
    "LoRATarget",
    "PeftTarget",
    "PrefixTarget",
    "Target",
    "make_target",
]


def make_target(model: nn.Module, spec: WeightSpec, checkpoint: bool = False) -> Target:
    """The target class that fits a spec.

    Args:
        model: The frozen network.
        spec: What the weights mean.
        checkpoint: Keep less for the backward pass, see `LoRATarget`; for LoRA and bottleneck
            adapters, whose hooks can run a second time.

    Raises:
        SpecError: No target takes this kind of spec, or it cannot be checkpointed.
        WeightsError: The spec was made for another base model.
    """
    if isinstance(spec, LoRASpec):
        return LoRATarget(model, spec, checkpoint)
    if isinstance(spec, AdapterSpec):
        return AdapterTarget(model, spec, checkpoint)
    if checkpoint:
        raise SpecError(
            f"checkpoint is for LoRA and bottleneck adapters, not for a {spec.kind!r} spec"
        )
    if isinstance(spec, PrefixSpec):
        return PrefixTarget(model, spec)
    if isinstance(spec, PeftSpec):
        return PeftTarget(model, spec)
    if isinstance(spec, (FullSpec, DeltaSpec)):
        return FunctionalTarget(model, spec)
    raise SpecError(f"no target takes a {spec.kind!r} spec")
