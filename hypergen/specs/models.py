"""What specs read off a model: matching module names, a base model's identity, depth."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence

from torch import nn

from hypergen._utils.errors import SpecError, WeightsError, did_you_mean
from hypergen._utils.fingerprint import is_quantised_linear, model_fingerprint


def match_modules(model: nn.Module, target: str | Sequence[str]) -> list[tuple[str, nn.Module]]:
    """Finds modules by PEFT's rule, in the order of the model.

    Args:
        model: Any module.
        target: A list of names, each matching a whole path or its end on a dot boundary; or one
            string, a regular expression for the whole path; or `"all-linear"`.

    Returns:
        Pairs of path and module, in `named_modules` order (deterministic, never a set's).

    Raises:
        SpecError: Nothing matches, or one of the listed names matches nothing.
    """
    modules = [(name, module) for name, module in model.named_modules() if name]
    if target == "all-linear":
        head = _output_layer(model)
        found = [(n, m) for n, m in modules if is_linear(m) and m is not head]
    elif isinstance(target, str):
        found = [(n, m) for n, m in modules if re.fullmatch(target, n)]
    else:
        found = [(n, m) for n, m in modules if any(_ends(n, t) for t in target)]
        for wanted in target:
            if not any(_ends(n, wanted) for n, _ in found):
                leaves = sorted({n.rsplit(".", 1)[-1] for n, m in modules if not any(m.children())})
                raise SpecError(
                    f"target module {wanted!r} is not in the model.{did_you_mean(wanted, leaves)}"
                )
    if not found:
        raise SpecError(f"no module of {type(model).__name__} matches {target!r}")
    return found


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _output_layer(model: nn.Module) -> nn.Module | None:
    # PEFT's "all-linear" leaves the head of a language model alone, and only that.
    getter = getattr(model, "get_output_embeddings", None)
    return getter() if callable(getter) else None


def is_linear(module: nn.Module) -> bool:
    """Whether the module is a `Linear`, a quantised one, or the transposed `Conv1D` of GPT-2."""
    return isinstance(module, nn.Linear) or is_conv1d(module) or is_quantised_linear(module)


def check_called(path: str, module: nn.Module) -> None:
    """Checks that a module's forward runs, so that a hook on it takes effect.

    Raises:
        SpecError: It is the output projection of `nn.MultiheadAttention`, which reads the weight
            and never calls the module.
    """
    if type(module).__name__ == "NonDynamicallyQuantizableLinear":
        raise SpecError(
            f"module {path!r} belongs to nn.MultiheadAttention, which never calls it: leave it out "
            "of target_modules, or use DeltaSpec"
        )


def is_conv1d(module: nn.Module) -> bool:
    """Whether the module is transformers' `Conv1D`, whose weight is [in, out]."""
    # By name: importing transformers here would make every spec slow to load.
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def layer_index(path: str) -> int | None:
    """First integer component of a module path: its block."""
    for part in path.split("."):
        if part.isdigit():
            return int(part)
    return None


def base_config(model: nn.Module) -> dict[str, str | None]:
    """Name and fingerprint of a base model, as specs record them."""
    name = getattr(getattr(model, "config", None), "_name_or_path", None) or None
    on_meta = any(p.device.type == "meta" for p in model.parameters())
    return {
        "class": type(model).__name__,
        "name": name,
        # Without values there is nothing to identify the base by: targets then check shapes alone.
        "fingerprint": None if on_meta else model_fingerprint(model),
    }


def cache_argument(model: nn.Module) -> str:
    """What a transformers model calls its kept keys and values, in arguments and outputs.

    `"cache"` since transformers 5.24, `"past_key_values"` before.
    """
    known = inspect.signature(type(model).forward).parameters
    return "cache" if "cache" in known else "past_key_values"


def describe_base(base: Mapping[str, str | None]) -> str:
    """A base model of `base_config` in words: its name, else its class, and its fingerprint."""
    fingerprint = base.get("fingerprint")
    said = f"fingerprint {fingerprint[:12]}" if fingerprint else "no fingerprint"
    return f"{base.get('name') or base.get('class') or 'an unnamed model'} ({said})"


def another_base(wanted: Mapping[str, str | None], own: Mapping[str, str | None]) -> str:
    """The sentence that names two base models: the one weights were made for, and the one here."""
    same = wanted.get("name") is not None and wanted.get("name") == own.get("name")
    hint = ": one name, but other values (another revision or quantisation)" if same else ""
    return (
        f"these weights were made for another base model than this {own.get('class')}, "
        f"{describe_base(own)}: for {describe_base(wanted)}{hint}"
    )


def check_base(model: nn.Module, base: Mapping[str, str | None] | None) -> None:
    """Checks that a model is the one that a spec was made for.

    Args:
        model: The model.
        base: What `base_config` recorded; nothing is known without a fingerprint.

    Raises:
        WeightsError: It is another one; names both.
    """
    if base is None or base["fingerprint"] is None:  # made on the meta device
        return
    own = base_config(model)
    if own["fingerprint"] != base["fingerprint"]:
        raise WeightsError(another_base(base, own))
