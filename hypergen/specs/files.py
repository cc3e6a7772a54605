"""Folders that stock PEFT (or hypergen itself) loads, written without importing either."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from hypergen._utils.errors import SpecError
from hypergen._utils.io import atomic_folder, save_safetensors, write_json, write_text
from hypergen.specs.adapter import AdapterSpec
from hypergen.specs.card import adapter_card
from hypergen.specs.full import DeltaSpec, FullSpec
from hypergen.specs.lora import LoRASpec
from hypergen.specs.peft import PREFIX, PeftSpec
from hypergen.specs.prefix import PrefixSpec
from hypergen.specs.weights import Weights

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_folder(weights: Weights, folder: Path, *, overwrite: bool = True) -> Path:
    """Writes one network (`B = 1`) as a folder, atomically.

    LoRA, prefixes and every PEFT method become a PEFT adapter folder; whole weights and
    differences become `model.safetensors` or `delta.safetensors`; bottleneck adapters, which PEFT
    does not have, `bottleneck.safetensors` with `bottleneck.json`.

    Returns:
        The folder.

    Raises:
        SpecError: The kind of spec has no file format.
    """
    writers: dict[str, Callable[[Weights], tuple[str, str, dict[str, Any], dict[str, Tensor]]]] = {
        LoRASpec.kind: _lora,
        PrefixSpec.kind: _prefix,
        PeftSpec.kind: _peft,
        FullSpec.kind: lambda w: ("model.safetensors", "spec.json", w.spec.to_dict(), _plain(w)),
        DeltaSpec.kind: lambda w: ("delta.safetensors", "spec.json", w.spec.to_dict(), _plain(w)),
        AdapterSpec.kind: lambda w: (
            "bottleneck.safetensors",
            "bottleneck.json",
            w.spec.to_dict(),
            _plain(w),
        ),
    }
    if weights.spec.kind not in writers:
        raise SpecError(
            f"a {weights.spec.kind!r} spec has no folder format: use Weights.save for one file"
        )
    file, config_file, config, tensors = writers[weights.spec.kind](weights)
    metadata = {
        "format": "pt",
        "hypergen.spec": json.dumps(weights.spec.to_dict(), sort_keys=True),
        "hypergen.provenance": json.dumps(weights.provenance, sort_keys=True),
    }
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        save_safetensors(temporary / file, tensors, metadata)
        write_json(temporary / config_file, config)
        write_text(temporary / "README.md", adapter_card(weights))
    return folder


def _plain(weights: Weights) -> dict[str, Tensor]:
    """Tensors of the first network in the slots' own dtypes."""
    flat = weights[0].detach().flat().cpu()
    return {name: t[0].contiguous() for name, t in weights.spec.unpack(flat).items()}


def _lora(weights: Weights) -> tuple[str, str, dict[str, Any], dict[str, Tensor]]:
    spec = weights.spec
    assert isinstance(spec, LoRASpec)
    modules = spec.config["modules"]
    kinds = {m["type"] for m in modules.values()}
    # A sorted list or one pattern: a set would be written in another order by another process.
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": spec.config["base"]["name"],
        "task_type": spec.config["task_type"],
        "inference_mode": True,
        "r": spec.config["r"],
        "lora_alpha": _whole(spec.config["alpha"]),
        "use_rslora": spec.config["use_rslora"],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": "conv1d" in kinds,
        "target_modules": spec.config["target_modules"],
    }
    if spec.config["rank_pattern"]:
        config["rank_pattern"] = spec.config["rank_pattern"]
    tensors = {PREFIX + name: tensor for name, tensor in _plain(weights).items()}
    return PEFT_WEIGHTS, PEFT_CONFIG, config, tensors


def _whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


def _prefix(weights: Weights) -> tuple[str, str, dict[str, Any], dict[str, Tensor]]:
    spec = weights.spec
    assert isinstance(spec, PrefixSpec)
    own = spec.config
    config = {
        "peft_type": "PREFIX_TUNING",
        "base_model_name_or_path": own["base"]["name"],
        "task_type": own["task_type"],
        "inference_mode": True,
        "num_virtual_tokens": own["num_virtual_tokens"],
        "num_layers": own["num_layers"],
        # With grouped queries PEFT's width and head count are those of keys and values.
        "token_dim": own["num_key_value_heads"] * own["head_dim"],
        "num_attention_heads": own["num_key_value_heads"],
        "num_transformer_submodules": 1,
        "prefix_projection": False,
        "encoder_hidden_size": None,
    }
    table = spec.to_peft(weights.detach()).cpu().contiguous()
    return PEFT_WEIGHTS, PEFT_CONFIG, config, {"prompt_embeddings": table}


def _peft(weights: Weights) -> tuple[str, str, dict[str, Any], dict[str, Tensor]]:
    config = {
        **weights.spec.config["peft_config"],
        "base_model_name_or_path": weights.spec.config["base"]["name"],
    }
    bare = set(weights.spec.config["bare"])
    tensors = {
        name if name in bare else PREFIX + name: tensor for name, tensor in _plain(weights).items()
    }
    return PEFT_WEIGHTS, PEFT_CONFIG, config, tensors
