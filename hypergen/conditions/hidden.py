"""What a frozen language model's layers or modules see, caught by hooks on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError, did_you_mean

Read = Literal["layer", "module"]


class HiddenStates:
    """Hidden states of a model for the modules that an adapter changes.

    Args:
        model: A transformers model.
        modules: Paths, or ends of paths.
        read: `"layer"`: the input of the layer (the path up to its number) that holds the module,
            divided by its root mean square. `"module"`: the module's own input.

    Attributes:
        places: Path of each module → first number and width of its reading.
        width: Sum of the widths.

    Raises:
        ConditionError: A module is not in the model, is in no numbered layer, or reads token
            numbers.
    """

    def __init__(self, model: nn.Module, modules: Sequence[str], read: Read) -> None:
        self.model, self.read = model, read
        paths = _matching(model, modules)
        self.units = list(dict.fromkeys(_layer(p) if read == "layer" else p for p in paths))
        config: Any = getattr(model, "config", None)
        widths = [
            int(config.hidden_size) if read == "layer" else _inputs(unit, model.get_submodule(unit))
            for unit in self.units
        ]
        starts = {u: sum(widths[:i]) for i, u in enumerate(self.units)}
        self.places = {
            path: (starts[unit], widths[self.units.index(unit)])
            for path in paths
            for unit in [_layer(path) if read == "layer" else path]
        }
        self.width = sum(widths)

    @torch.no_grad()
    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Runs the model up to the last module that is needed.

        Args:
            ids: `[N, L]` token numbers, padded at the end.
            mask: `[N, L]` bool.

        Returns:
            `[N, L, width]` in float32, zero under the mask.
        """
        caught: dict[str, Tensor] = {}
        handles = [
            self.model.get_submodule(unit).register_forward_pre_hook(
                self._catching(unit, caught), with_kwargs=True
            )
            for unit in self.units
        ]
        training = self.model.training
        self.model.eval()
        # Padding stands behind the tokens; where there is none, attention is faster without a mask.
        attend = {} if bool(mask.all()) else {"attention_mask": mask.long()}
        body = getattr(self.model, "base_model", self.model)
        try:
            body(input_ids=ids, use_cache=False, **attend)
        except _AllCaught:
            pass
        finally:
            self.model.train(training)
            for handle in handles:
                handle.remove()
        lost = [unit for unit in self.units if unit not in caught]
        if lost:
            raise ConditionError(f"the model never calls {lost[0]!r}: leave it out of modules")
        parts = [caught[unit].float() for unit in self.units]
        if self.read == "layer":
            parts = [nn.functional.rms_norm(part, part.shape[-1:], eps=1e-6) for part in parts]
        return torch.cat(parts, -1).masked_fill_(~mask[..., None], 0)

    def _catching(self, unit: str, caught: dict[str, Tensor]) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states = args[0] if args else kwargs.get("hidden_states", kwargs.get("input"))
            if not isinstance(states, Tensor):
                raise ConditionError(f"module {unit!r} is not called with a tensor")
            caught[unit] = states
            if len(caught) == len(self.units):
                raise _AllCaught

        return hook


class _AllCaught(Exception):
    """Ends a forward pass: nothing that it would still compute is needed."""


def _matching(model: nn.Module, modules: Sequence[str]) -> list[str]:
    """Paths of the modules, in the order of the model."""
    known = [path for path, _ in model.named_modules() if path]
    for wanted in modules:
        if not any(_ends(path, wanted) for path in known):
            leaves = {path.rpartition(".")[2] for path in known}
            raise ConditionError(
                f"the model has no module {wanted!r}.{did_you_mean(wanted, leaves)}"
            )
    return [path for path in known if any(_ends(path, wanted) for wanted in modules)]


def _ends(path: str, wanted: str) -> bool:
    return path == wanted or path.endswith(f".{wanted}")


def _layer(path: str) -> str:
    """The path up to its first number."""
    parts = path.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    if not numbers:
        raise ConditionError(
            f"module {path!r} is in no numbered layer, whose input could be read: leave it out, or "
            "use read='module'"
        )
    return ".".join(parts[: numbers[0] + 1])


def _inputs(path: str, module: nn.Module) -> int:
    if isinstance(module, nn.Embedding):
        raise ConditionError(f"module {path!r} reads token numbers, not hidden states")
    if type(getattr(module, "in_features", None)) is int:
        return int(module.in_features)  # type: ignore[arg-type]
    weight = getattr(module, "weight", None)
    if type(module).__name__ == "Conv1D" and isinstance(weight, Tensor):
        return int(weight.shape[0])  # GPT-2 stores [in, out]
    raise ConditionError(f"module {path!r} ({type(module).__name__}) is not linear")
