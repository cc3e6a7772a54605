"""LoRA adapters of any origin as pairs of factors, read without their base model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import RunError, UsageError, WeightsError
from hypergen._utils.io import load_safetensors_metadata, read_json
from hypergen.serving.export import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    check_plain,
    read_folder,
    scaling_of,
)
from hypergen.serving.output import INDEX_FILE
from hypergen.specs import LoRASpec, Weights
from hypergen.specs.models import describe_base
from hypergen.specs.peft import PREFIX

_KINDS = {"lora_A.weight": "A", "lora_B.weight": "B"}
_EMBEDDINGS = {"lora_embedding_A": "A", "lora_embedding_B": "B"}


@dataclass(frozen=True, eq=False)
class Adapter:
    """One LoRA.

    Attributes:
        name: What it is called in messages and cards.
        config: As `hypergen.specs.lora.from_updates` takes it.
        pairs: Module path → A `[r, in]` and B `[out, r]`.
        scaling: Module path → factor of B · A.
    """

    name: str
    config: Mapping[str, Any]
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    scaling: Mapping[str, float]

    @staticmethod
    def of(weights: Weights, name: str) -> Adapter:
        """One network of a `LoRASpec`.

        Raises:
            WeightsError: Of another spec, or not one network.
        """
        spec = weights.spec
        if not isinstance(spec, LoRASpec):
            raise WeightsError(f"{name} is a {spec.kind!r}, not a LoRA: only LoRAs can be combined")
        if len(weights) != 1:
            raise WeightsError(f"{name} holds {len(weights)} networks: pick one, or give each")
        pairs = {}
        for path in spec.modules:
            a, b = spec.pair(weights.detach(), path)
            pairs[path] = a[0], b[0]
        return Adapter(name, spec.config, pairs, {p: spec.scaling(p) for p in spec.modules})


def read_adapters(source: str | Path) -> list[Adapter]:
    """Reads what a folder or file holds.

    Args:
        source: A folder of stock PEFT or of hypergen; a folder of several, as `hypergen generate`
            writes them; or a file of `Weights.save`.

    Raises:
        RunError: Something is missing or damaged; names it.
        WeightsError: It is no plain LoRA; says why.
    """
    path = Path(source)
    if path.is_file():
        weights = Weights.load(path)
        names = [f"{path}[{i}]" for i in range(len(weights))] if len(weights) > 1 else [str(path)]
        return [Adapter.of(one, name) for one, name in zip(weights, names, strict=True)]
    if not path.exists():
        raise RunError(f"{path} does not exist: give an adapter folder or a file of Weights.save")
    if (path / INDEX_FILE).is_file():
        names = sorted(read_json(path / INDEX_FILE))
        return [_read(path / name) for name in names]
    return [_read(path)]


def _read(folder: Path) -> Adapter:
    config, tensors = read_folder(folder)
    check_plain(config, folder / CONFIG_FILE)
    pairs: dict[str, dict[str, Tensor]] = {}
    kinds: dict[str, str] = {}
    linear = "conv1d" if config.get("fan_in_fan_out") else "linear"
    for name, tensor in tensors.items():
        short = name.removeprefix(PREFIX)
        for endings, kind in ((_KINDS, linear), (_EMBEDDINGS, "embedding")):
            for ending, letter in endings.items():
                if short.endswith(f".{ending}"):
                    module = short[: -len(ending) - 1]
                    pairs.setdefault(module, {})[letter] = tensor
                    kinds[module] = kind
                    break
            else:
                continue
            break
        else:
            raise WeightsError(f"{folder / WEIGHTS_FILE}: {name!r} is no factor of a LoRA")
    for module, pair in pairs.items():
        if set(pair) != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
            raise WeightsError(f"{folder / WEIGHTS_FILE}: A and B of {module!r} do not fit")
    if not pairs:
        raise WeightsError(f"{folder / WEIGHTS_FILE} holds no LoRA")
    own = _spec(folder)
    order = sorted(pairs, key=_natural)
    made = own or {
        "task_type": config.get("task_type"),
        "order": order,
        "target_modules": _targets(config.get("target_modules"), order),
        "modules": {p: {"r": pairs[p]["A"].shape[0], "type": kinds[p]} for p in order},
        "base": {
            "class": None,
            "name": config.get("base_model_name_or_path") or None,
            "fingerprint": None,
        },
    }
    return Adapter(
        str(folder),
        made,
        {p: (pair["A"].float(), pair["B"].float()) for p, pair in pairs.items()},
        {p: scaling_of(config, p)[1] for p in pairs},
    )


def _spec(folder: Path) -> dict[str, Any] | None:
    """The configuration of hypergen's own spec in a folder's file, if it wrote it."""
    text = load_safetensors_metadata(folder / WEIGHTS_FILE).get("hypergen.spec")
    if text is None:
        return None
    try:
        config = json.loads(text)["config"]
        return config if "order" in config else None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / WEIGHTS_FILE}: its hypergen.spec is damaged") from error


def _targets(given: Any, order: list[str]) -> list[str] | str:
    return given if isinstance(given, str) else sorted(given or order)


def _natural(path: str) -> list[Any]:
    """Layer 10 after layer 9."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", path)]


def aligned(adapters: list[Adapter]) -> list[Adapter]:
    """The adapters with one base and one order of modules.

    Raises:
        UsageError: None given.
        WeightsError: Other bases, modules or shapes; names both adapters.
    """
    if not adapters:
        raise UsageError("no adapters to combine")
    bases = [(a, a.config["base"]) for a in adapters]
    for key in ("fingerprint", "name"):
        known = [(a, base) for a, base in bases if base.get(key)]
        for other, base in known[1:]:
            first, own = known[0]
            same = base["fingerprint"] == own["fingerprint"] and base.get("fingerprint")
            if base[key] != own[key] and not same:
                raise WeightsError(
                    f"{first.name} and {other.name} are adapters for different base models: "
                    f"{describe_base(own)} and {describe_base(base)}"
                )
    first = adapters[0]
    for other in adapters[1:]:
        odd = sorted(set(first.pairs) ^ set(other.pairs))
        if odd:
            holder, lacks = (first, other) if odd[0] in first.pairs else (other, first)
            raise WeightsError(
                f"{holder.name} adapts module {odd[0]!r}, which {lacks.name} does not: combine "
                "adapters of the same modules"
            )
        for path, (a, b) in first.pairs.items():
            theirs = other.pairs[path]
            shapes = (b.shape[0], a.shape[1]), (theirs[1].shape[0], theirs[0].shape[1])
            if shapes[0] != shapes[1]:
                raise WeightsError(
                    f"module {path!r} is {list(shapes[0])} in {first.name} and {list(shapes[1])} "
                    f"in {other.name}: these are adapters for different base models"
                )
    # What one of them knows of the base, all do.
    best = next((a for a, base in bases if base.get("fingerprint")), first)
    return [replace(a, config=best.config) for a in adapters]


def factors(adapter: Adapter, path: str) -> tuple[Tensor, Tensor, float]:
    """A, B and the scaling of a module, in float32 at least."""
    a, b = adapter.pairs[path]
    exact = torch.promote_types(a.dtype, torch.float32)
    return a.to(exact), b.to(exact), adapter.scaling[path]
