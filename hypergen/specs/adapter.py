"""Bottleneck adapters as an emission target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from hypergen._utils.errors import SpecError
from hypergen.specs.base import WeightSpec
from hypergen.specs.models import base_config, check_called, layer_index, match_modules
from hypergen.specs.slot import Role, Slot


class AdapterSpec(WeightSpec):
    """Residual bottlenecks h + U · act(D · h + d) + u behind chosen modules.

    Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019,
    arXiv:1902.00751. U and u start at zero: the target starts as the unchanged base. PEFT has no
    such method; the exported folder is hypergen's own and never uses PEFT's file names.

    Args:
        model: The base model (may be on the meta device).
        target_modules: Modules whose output is adapted; see `match_modules`.
        bottleneck: Width of the bottleneck.
        activation: `"relu"`, `"gelu"` or `"tanh"`.
        widths: Module path → width of its output, for modules that do not tell it by
            `out_features`, `nf`, `normalized_shape` or `embedding_dim`.

    Raises:
        SpecError: Nothing matches, or the width of a module's output is unknown.
    """

    kind: ClassVar[str] = "adapter"

    def __init__(
        self,
        model: nn.Module,
        target_modules: str | Sequence[str] = "all-linear",
        bottleneck: int = 8,
        activation: str = "relu",
        *,
        widths: dict[str, int] | None = None,
    ) -> None:
        if bottleneck < 1:
            raise SpecError("the bottleneck of an adapter must be at least 1 wide")
        if activation not in ("relu", "gelu", "tanh"):
            raise SpecError(f"activation {activation!r} is not one of relu, gelu, tanh")
        slots: list[Slot] = []
        for path, module in match_modules(model, target_modules):
            check_called(path, module)
            width = (widths or {}).get(path) or _width(path, module)
            slots += _bottleneck(path, width, bottleneck)
        config = {
            "bottleneck": bottleneck,
            "activation": activation,
            "order": list(dict.fromkeys(slot.module for slot in slots)),
            "base": base_config(model),
        }
        super().__init__(slots, config)

    @property
    def is_additive(self) -> bool:
        """A zero up-projection is the unchanged base."""
        return True

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of the adapted modules, in the order of the model."""
        return tuple(self.config["order"])


def _width(path: str, module: nn.Module) -> int:
    for attribute in ("out_features", "nf", "normalized_shape", "embedding_dim"):
        value = getattr(module, attribute, None)
        if isinstance(value, int):
            return value
        if isinstance(value, (tuple, list)) and value:
            return int(value[-1])
    raise SpecError(
        f"the output width of module {path!r} ({type(module).__name__}) is unknown: give it in "
        "widths={path: width}"
    )


def _bottleneck(path: str, width: int, bottleneck: int) -> list[Slot]:
    down, up = 1 / math.sqrt(width), 1 / math.sqrt(bottleneck)

    def slot(part: str, shape: tuple[int, ...], role: Role, std: float, scale: float) -> Slot:
        return Slot(
            name=f"{path}.adapter_{part}",
            shape=shape,
            role=role,
            module=path,
            layer=layer_index(path),
            fan_in=shape[-1] if len(shape) == 2 else None,
            fan_out=shape[0],
            std=std,
            scale=scale,
        )

    return [
        slot("down.weight", (bottleneck, width), "adapter_down", down, down),
        slot("down.bias", (bottleneck,), "bias", 0.0, 0.1),
        slot("up.weight", (width, bottleneck), "adapter_up", 0.0, up),
        slot("up.bias", (width,), "bias", 0.0, 0.1),
    ]
