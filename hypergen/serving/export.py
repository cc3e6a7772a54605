"""PEFT folders: proved against stock PEFT, read back as Weights."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import RunError, WeightsError, did_you_mean
from hypergen._utils.io import load_safetensors, load_safetensors_metadata, read_json
from hypergen.specs import LoRASpec, Weights
from hypergen.specs.models import describe_base
from hypergen.specs.peft import BASE_KEPT, PREFIX, structural_copy
from hypergen.targets import Target

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


def check_export(
    weights: Weights, target: Target, folder: str | Path, batch: Any, atol: float = 1e-5
) -> float:
    """Loads an exported folder by stock PEFT and compares it with hypergen's own call.

    Args:
        weights: One network (`B = 1`), as it was exported.
        target: The frozen target; its model is neither changed nor wrapped.
        folder: What `Weights.save_pretrained` wrote.
        batch: Input of the target.
        atol: Largest difference allowed.

    Returns:
        Largest absolute difference of the outputs (logits).

    Raises:
        RunError: The folder is missing or damaged.
        WeightsError: Not one network, PEFT finds keys that do not fit, or the outputs differ.
    """
    from peft import PeftModel, get_peft_model_state_dict

    if len(weights) != 1:
        raise WeightsError(f"check_export compares one network with its folder, not {len(weights)}")
    folder = Path(folder)
    _, tensors = read_folder(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PEFT only warns of is checked below
            # PEFT replaces modules: it gets a copy of their tree that shares every tensor.
            stock = PeftModel.from_pretrained(structural_copy(target.model), str(folder)).eval()
            loaded = get_peft_model_state_dict(stock, save_embedding_layers=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"stock PEFT cannot load {folder}: {reason}") from error
    for name in loaded:
        if name not in tensors:
            raise WeightsError(f"{folder / WEIGHTS_FILE} lacks {name!r}, which stock PEFT expects")
    for name in tensors:
        if name not in loaded:
            raise WeightsError(f"{folder / WEIGHTS_FILE} holds {name!r}, which stock PEFT ignores")
    with torch.no_grad():
        own, theirs = _logits(target(weights, batch)), _logits(_call(stock, batch))
    difference = float((own.float() - theirs.float()).abs().max())
    if not difference <= atol:
        raise WeightsError(
            f"{folder}: outputs through stock PEFT differ from hypergen's by {difference:.2e}, "
            f"more than {atol:.0e}"
        )
    return difference


def _call(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def _logits(output: Any) -> Tensor:
    logits = getattr(output, "logits", output)
    found = logits[0] if isinstance(logits, (tuple, list)) else logits
    if not isinstance(found, Tensor):
        raise WeightsError(f"the target returns a {type(found).__name__}, which holds no logits")
    return found


def read_folder(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        RunError: A file is missing or damaged; names it.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG_FILE)
    if not isinstance(config, dict):
        raise RunError(f"{folder / CONFIG_FILE} is damaged: it holds no JSON object")
    return config, load_safetensors(folder / WEIGHTS_FILE)


def load_adapter(folder: str | Path, spec: LoRASpec) -> Weights:
    """Reads a LoRA folder, written by hypergen or by stock PEFT, as weights of a spec.

    Args:
        folder: The folder.
        spec: What the weights must fit; every setting that changes the function is compared.

    Returns:
        Weights of batch size 1.

    Raises:
        RunError: A file is missing or damaged.
        WeightsError: Not plain LoRA, made for another base model, of another rank, alpha or set of
            modules, or with a tensor too many, too few or of a wrong shape; names it.
    """
    folder = Path(folder)
    config, tensors = read_folder(folder)
    path = folder / CONFIG_FILE
    check_plain(config, path)
    _check_base(folder, config, spec)
    for module in spec.modules:
        try:
            rank, scaling = scaling_of(config, module)
        except (TypeError, ValueError, ZeroDivisionError, re.error) as error:
            raise WeightsError(f"{path} is damaged: its r, lora_alpha or patterns") from error
        if rank != spec.rank(module):
            raise WeightsError(
                f"{path}: module {module!r} has rank {rank}, the spec {spec.rank(module)}"
            )
        if abs(scaling - spec.scaling(module)) > 1e-9 * abs(spec.scaling(module)):
            raise WeightsError(
                f"{path}: module {module!r} is scaled by {scaling:g}, in the spec by "
                f"{spec.scaling(module):g} (alpha / r): another alpha"
            )
    named = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(PREFIX)
        if short not in spec:
            raise WeightsError(
                f"{folder / WEIGHTS_FILE}: tensor {name!r} fits no slot."
                f"{did_you_mean(short, spec.names)}"
            )
        named[short] = tensor
    try:
        weights = spec.from_named(named)
    except WeightsError as error:
        raise WeightsError(f"{folder / WEIGHTS_FILE}: {error}") from error
    return weights


def check_plain(config: Mapping[str, Any], path: Path) -> None:
    """Raises WeightsError if a PEFT configuration is not that of plain LoRA; says why."""
    if config.get("peft_type") != "LORA":
        raise WeightsError(f"{path}: peft_type is {config.get('peft_type')!r}, not 'LORA'")
    for key, plain in (("use_dora", False), ("bias", "none"), ("modules_to_save", None)):
        if config.get(key) not in (plain, None, [], False):
            raise WeightsError(f"{path}: {key} is {config[key]!r}; only plain LoRA can be read")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in BASE_KEPT:
        raise WeightsError(
            f"{path}: init_lora_weights is {start!r}, which changes the base's own weights: "
            "convert it to plain LoRA first (PEFT's path_initial_model_for_weight_conversion)"
        )


def _check_base(folder: Path, config: Mapping[str, Any], spec: LoRASpec) -> None:
    """Compares fingerprints where the file has one (hypergen's own), else names."""
    own = spec.config["base"]
    text = load_safetensors_metadata(folder / WEIGHTS_FILE).get("hypergen.spec")
    theirs: Mapping[str, Any] = {}
    if text is not None:
        try:
            theirs = json.loads(text)["config"]["base"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{folder / WEIGHTS_FILE}: its hypergen.spec is damaged") from error
    mine = describe_base(own)
    if theirs.get("fingerprint") and theirs["fingerprint"] != own["fingerprint"]:
        raise WeightsError(
            f"{folder} is an adapter for another base model: {describe_base(theirs)}, not {mine}"
        )
    name = config.get("base_model_name_or_path")
    if not theirs and name and own["name"] and name != own["name"]:
        raise WeightsError(f"{folder} is an adapter for another base model: {name}, not {mine}")


def scaling_of(config: Mapping[str, Any], module: str) -> tuple[int, float]:
    """Rank and scaling of a module by PEFT's rules for patterns."""

    def by_pattern(patterns: Mapping[str, Any] | None, default: Any) -> Any:
        for key, value in (patterns or {}).items():
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        return default

    rank = int(by_pattern(config.get("rank_pattern"), config.get("r", 8)))
    alpha = float(by_pattern(config.get("alpha_pattern"), config.get("lora_alpha", 8)))
    return rank, alpha / (rank**0.5 if config.get("use_rslora") else rank)
