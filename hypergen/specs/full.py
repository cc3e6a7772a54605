"""Whole parameters as an emission target: replaced (FullSpec) or added to (DeltaSpec)."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.specs.base import WeightSpec
from hypergen.specs.models import base_config, layer_index
from hypergen.specs.slot import Role, Slot

_NORMS = ("norm", "bn")


class FullSpec(WeightSpec):
    """Every selected parameter of a network, generated whole.

    Tied parameters are one slot, which lists the other names in `ties`. Weights start with
    standard deviation gain / sqrt(fan_in), so that activations keep their variance
    (He et al., "Delving Deep into Rectifiers", ICCV 2015, arXiv:1502.01852); biases at 0, scales
    of normalisation layers at 1.

    Args:
        model: The network (may be on the meta device).
        select: One or several globs over the names of parameters (and buffers).
        gain: sqrt(2) for ReLU networks, 1 for linear ones.
        buffers: Also generate the selected floating-point buffers that the network saves: the
            running mean and variance of batch norm, which start at 0 and 1.

    Raises:
        SpecError: Nothing is selected, or a selected parameter is not floating point.
    """

    kind: ClassVar[str] = "full"

    def __init__(
        self,
        model: nn.Module,
        select: str | Sequence[str] = "*",
        *,
        gain: float = math.sqrt(2),
        buffers: bool = False,
    ) -> None:
        slots = parameter_slots(model, select, gain, buffers=buffers)
        config = {"select": select, "gain": gain, "base": base_config(model)}
        # Only where it is set: specs without buffers keep the fingerprints that files hold.
        super().__init__(slots, {**config, "buffers": True} if buffers else config)

    @classmethod
    def of(cls, slots: Iterable[Slot], config: Mapping[str, Any] | None = None) -> FullSpec:
        """A spec of slots that were read off something else than a model, such as a graph.

        Raises:
            SpecError: No slot, or two slots of one name.
        """
        spec = cls.__new__(cls)
        WeightSpec.__init__(spec, slots, config)
        return spec


class DeltaSpec(WeightSpec):
    """Differences that are added to every selected parameter of a base network.

    Starts at exactly zero, so that the target starts as the unchanged base.

    Args:
        model: The base network (may be on the meta device).
        select: One or several globs over parameter names.

    Raises:
        SpecError: Nothing is selected, or a selected parameter is not floating point.
    """

    kind: ClassVar[str] = "delta"

    def __init__(self, model: nn.Module, select: str | Sequence[str] = "*") -> None:
        slots = parameter_slots(model, select, gain=1.0, zero=True)
        super().__init__(slots, {"select": select, "base": base_config(model)})

    @property
    def is_additive(self) -> bool:
        """Zero is the unchanged base."""
        return True


def parameter_slots(
    model: nn.Module,
    select: str | Sequence[str],
    gain: float,
    zero: bool = False,
    buffers: bool = False,
) -> list[Slot]:
    """One slot per distinct selected parameter (then buffer), in the order of the model."""
    patterns = [select] if isinstance(select, str) else list(select)
    modules = dict(model.named_modules())
    first: dict[int, str] = {}
    ties: dict[str, list[str]] = {}
    chosen: list[tuple[str, Tensor]] = []
    named: list[tuple[str, Tensor]] = list(model.named_parameters(remove_duplicate=False))
    for name, parameter in [*named, *(_saved_buffers(model) if buffers else [])]:
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            continue
        if id(parameter) in first:
            ties[first[id(parameter)]].append(name)
            continue
        first[id(parameter)] = name
        ties[name] = []
        chosen.append((name, parameter))
    if not chosen:
        raise SpecError(f"no parameter of {type(model).__name__} matches {select!r}")
    slots = []
    for name, parameter in chosen:
        path = name.rpartition(".")[0]
        role, fan_in, fan_out = _role(name, parameter, modules[path])
        mean, std, scale = _start(role, fan_in, gain)
        if not isinstance(parameter, nn.Parameter):
            role, fan_in, fan_out = "other", None, None
            mean, std, scale = float(name.endswith("running_var")), 0.0, 0.1
        slots.append(
            Slot(
                name=name,
                shape=tuple(parameter.shape),
                role=role,
                dtype=_dtype_name(name, parameter.dtype),
                module=path,
                layer=layer_index(path),
                fan_in=fan_in,
                fan_out=fan_out,
                ties=tuple(ties[name]),
                mean=0.0 if zero else mean,
                std=0.0 if zero else std,
                scale=scale,
            )
        )
    return slots


def _saved_buffers(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Floating-point buffers of the state dict; counters and caches have nothing to learn."""
    saved = model.state_dict(keep_vars=True)
    return [
        (name, buffer)
        for name, buffer in model.named_buffers(remove_duplicate=False)
        if name in saved and buffer.is_floating_point()
    ]


def _dtype_name(name: str, dtype: torch.dtype) -> str:
    if not dtype.is_floating_point:
        raise SpecError(f"parameter {name!r} is {dtype}: only floating-point ones can be generated")
    return str(dtype).removeprefix("torch.")


def _role(name: str, parameter: Tensor, module: nn.Module) -> tuple[Role, int | None, int | None]:
    kind = type(module).__name__.lower()
    leaf = name.rpartition(".")[2]
    if isinstance(module, nn.Embedding):
        return "embedding", 1, parameter.shape[-1]
    if any(part in kind for part in _NORMS) and parameter.dim() <= 1:
        return ("bias" if "bias" in leaf else "norm"), None, None
    if parameter.dim() >= 2:
        fan_out, fan_in = parameter.shape[0], parameter[0].numel()
        if type(module).__name__ == "Conv1D":  # transformers' Conv1D keeps [in, out]
            fan_in, fan_out = fan_out, fan_in
        return "weight", fan_in, fan_out
    return ("bias" if "bias" in leaf else "other"), None, parameter.numel()


def _start(role: Role, fan_in: int | None, gain: float) -> tuple[float, float, float]:
    """Mean, standard deviation and scale of a role."""
    if role == "norm":
        return 1.0, 0.0, 0.1
    if role == "bias":
        return 0.0, 0.0, 0.1
    if role == "embedding":
        return 0.0, 1.0, 1.0
    std = gain / math.sqrt(fan_in) if fan_in else 0.02
    return 0.0, std, std
