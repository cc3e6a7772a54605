"""Merging generated updates into a copy of the base: a model that needs no adapter."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypergen import __version__
from hypergen._utils.errors import WeightsError
from hypergen._utils.io import atomic_folder, write_json, write_text
from hypergen.specs import DeltaSpec, FullSpec, LoRASpec, Weights, WeightSpec
from hypergen.specs.card import merged_card
from hypergen.specs.models import check_base
from hypergen.targets.functional import check_parameters
from hypergen.targets.hooks import find_modules

MARK_FILE = "hypergen.json"  # says that a folder was written here, and which files are in it
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_Place = tuple[nn.Module, str]


def check_mergeable(spec: WeightSpec) -> None:
    """Checks that weights of a spec can become part of the base's own.

    Raises:
        WeightsError: They cannot (prefixes, bottleneck adapters, other PEFT methods).
    """
    if not isinstance(spec, LoRASpec | DeltaSpec | FullSpec):
        raise WeightsError(
            f"{type(spec).__name__} cannot be merged into its base; LoRASpec, DeltaSpec and "
            "FullSpec can"
        )


@torch.no_grad()
def merge_into_base(weights: Weights, model: nn.Module) -> nn.Module:
    """A copy of a model whose own weights hold one network's updates.

    Sums are computed in float32 at least and rounded to the dtype of the base. A weight that an
    adapted module shares with another one (tied embeddings) is untied, as the adapter acts on the
    one alone; a transformers model's `tie_word_embeddings` is set to match.

    Args:
        weights: One network (`B = 1`) of a `LoRASpec`, `DeltaSpec` or `FullSpec`.
        model: The base that it was made for, which stays as it is.

    Returns:
        The merged copy, in evaluation mode.

    Raises:
        WeightsError: Not one network, of another kind, NaN or infinite, made for another base (both
            are named), or the base is quantised or ties weights that it cannot untie.
    """
    spec = weights.spec
    check_mergeable(spec)
    if len(weights) != 1:
        raise WeightsError(
            f"one network is merged into a base, not {len(weights)}: pick one of them"
        )
    weights.check_finite()
    _refuse_quantised(model, spec)
    check_base(model, spec.config.get("base"))
    merged = copy.deepcopy(model)
    if isinstance(spec, LoRASpec):
        values = _lora(weights, spec, merged)
    else:
        check_parameters(merged, spec)
        values = _whole(weights, spec, merged)
    left = _install(merged, values)
    if left:
        _declare_untied(merged, left)
    return merged.eval()


def _refuse_quantised(model: nn.Module, spec: WeightSpec) -> None:
    """Refuses what only stands for its weights: there is nothing to add to."""
    advice = "merge into the unquantised model, or serve the adapter beside the quantised one"
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    if config is not None or getattr(model, "is_quantized", False):
        method = config.get("quant_method") if isinstance(config, Mapping) else None
        method = method or getattr(config, "quant_method", None) or type(config).__name__
        raise WeightsError(f"the base is quantised ({getattr(method, 'value', method)}): {advice}")
    modules = dict(model.named_modules())
    for path in spec.modules if isinstance(spec, LoRASpec) else ():
        module = modules.get(path)
        if module is None:
            return  # another base, which is told next
        weight = module._parameters.get("weight")
        # Quantisers keep whole numbers, small floats, or a tensor class of their own.
        if weight is None or weight.dtype not in _FLOATS or type(weight.data) is not Tensor:
            held = (
                "no weight" if weight is None else f"{type(weight.data).__name__}, {weight.dtype}"
            )
            raise WeightsError(
                f"module {path!r} ({type(module).__name__}) holds no plain floating-point weight "
                f"({held}): {advice}"
            )


def _lora(weights: Weights, spec: LoRASpec, model: nn.Module) -> list[tuple[list[_Place], Tensor]]:
    """Where each adapted module's weight is, and what it becomes."""
    out: list[tuple[list[_Place], Tensor]] = []
    for path, module in find_modules(model, spec.modules).items():
        old: Tensor = module.weight  # type: ignore[assignment]
        exact = torch.promote_types(torch.promote_types(old.dtype, weights.dtype), torch.float32)
        a, b = (t[0].to(old.device, exact) for t in spec.pair(weights, path))
        delta = spec.scaling(path) * (b @ a)  # [out, in]
        if spec.config["modules"][path]["type"] != "linear":  # Conv1D and tables are transposed
            delta = delta.T
        out.append(([(module, "weight")], (old.to(exact) + delta).to(old.dtype)))
    return out


def _whole(
    weights: Weights, spec: WeightSpec, model: nn.Module
) -> list[tuple[list[_Place], Tensor]]:
    """Where each slot's parameter or buffer is, under all its names, and what it becomes."""
    out: list[tuple[list[_Place], Tensor]] = []
    for slot in spec:
        places = [_place(model, name) for name in (slot.parameter, *slot.ties)]
        module, leaf = places[0]
        old: Tensor = getattr(module, leaf)
        value = weights[slot.name][0].to(old.device)
        if isinstance(spec, DeltaSpec):
            exact = torch.promote_types(old.dtype, torch.float32)
            value = old.to(exact) + value.to(exact)
        out.append((places, value.to(old.dtype).clone()))
    return out


def _place(model: nn.Module, name: str) -> _Place:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _install(model: nn.Module, values: list[tuple[list[_Place], Tensor]]) -> list[nn.Module]:
    """Replaces tensors; returns the modules that shared one of them and keep or change it alone."""
    shared: dict[int, list[_Place]] = {}
    for module in model.modules():
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                shared.setdefault(id(parameter), []).append((module, leaf))
    parted: list[nn.Module] = []
    for places, value in values:
        old = getattr(*places[0])
        together = {(id(module), leaf) for module, leaf in places}
        others = [p for p in shared.get(id(old), []) if (id(p[0]), p[1]) not in together]
        if others:
            parted += [module for module, _ in (*places, *others)]
        new = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
        for module, leaf in places:
            setattr(module, leaf, new)
    return parted


def _declare_untied(model: nn.Module, parted: list[nn.Module]) -> None:
    """Makes a transformers model's configuration say that its embeddings differ now."""
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(model, "get_output_embeddings"):
        return
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]  # type: ignore[operator]
    if not all(any(module is end for end in ends) for module in parted):
        raise WeightsError(
            f"{type(model).__name__} shares an adapted weight between modules that are not its "
            "input and output embeddings; its files cannot hold them apart: leave these modules "
            "out of target_modules"
        )
    for part in (config, config.get_text_config()):
        part.tie_word_embeddings = False


def save_merged(model: Any, tokenizer: Any, weights: Weights, folder: str | Path) -> Path:
    """Writes a merged transformers model as a folder of its own, atomically.

    Args:
        model: What `merge_into_base` returned.
        tokenizer: The base's tokenizer; none is written when None.
        weights: What was merged, for the model card.
        folder: Where to write; a folder of that name is replaced.

    Returns:
        The folder: configuration, safetensors, tokenizer, model card, and `hypergen.json`.

    Raises:
        WeightsError: The model is not of transformers: it has no files of its own.
    """
    if not hasattr(model, "save_pretrained"):
        raise WeightsError(
            f"{type(model).__name__} is no transformers model and has no folder format: save its "
            "state dict instead"
        )
    folder = Path(folder)
    with atomic_folder(folder, overwrite=True) as temporary, _without_bar():
        model.save_pretrained(temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        write_text(temporary / "README.md", merged_card(weights))
        mode = (temporary / "README.md").stat().st_mode
        for file in temporary.glob("*.safetensors"):
            file.chmod(mode)  # as every other file's; the library keeps others out
        mark = {
            "hypergen": __version__,
            "merged": weights.spec.kind,
            "base": weights.spec.config.get("base"),
            "provenance": weights.provenance,
            "files": sorted(str(p.relative_to(temporary)) for p in temporary.rglob("*")),
        }
        write_json(temporary / MARK_FILE, mark)
    return folder


@contextmanager
def _without_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
