"""The portable profile: what vLLM and servers like it take of a PEFT adapter folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hypergen.serving.export import read_folder
from hypergen.specs.peft import BASE_KEPT, PREFIX

_SERVED_RANK = 16  # vLLM's default of --max-lora-rank
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what that option takes

# Settings that change what an adapter computes and that servers reject or, worse, pass over.
_UNSERVED = {
    "use_dora": "vLLM rejects DoRA",
    "modules_to_save": "vLLM rejects whole modules",
    "rank_pattern": "vLLM applies one r and alpha to every module",
    "alpha_pattern": "vLLM applies one r and alpha to every module",
    "lora_bias": "vLLM rejects tensors other than A and B",
    "trainable_token_indices": "vLLM rejects tensors other than A and B",
    "target_parameters": "vLLM adapts modules, not single parameters",
    "layer_replication": "vLLM serves the layers of the base as they are",
    "alora_invocation_tokens": "vLLM applies the adapter to every token",
    "use_qalora": "vLLM applies A to the input itself",
    "use_bdlora": "vLLM takes A and B as whole matrices",
    "arrow_config": "vLLM routes between no adapters",
}


def portable_profile(folder: str | Path) -> list[str]:
    """What would make servers refuse an adapter, or serve it wrongly.

    vLLM, SGLang and LoRAX take plain LoRA: one rank and alpha for every module, A and B for each,
    no bias, no DoRA, no whole modules, for the base's own weights. The rules are those of vLLM's
    `PEFTHelper`, of its `--max-lora-rank` and of its names of tensors; rsLoRA is served. Whether
    vLLM knows the base model, and adapts each of its modules, the folder cannot tell.

    Args:
        folder: A PEFT adapter folder.

    Returns:
        One sentence for each problem; empty for a portable adapter.

    Raises:
        RunError: A file is missing or damaged; names it.
    """
    config, tensors = read_folder(folder)
    kind = config.get("peft_type")
    if kind != "LORA":
        return [f"peft_type is {kind!r}: servers take LORA"]
    rank = config.get("r")
    if not isinstance(rank, int):
        return ["r is missing: servers read the rank from it"]
    return [*_settings(config, rank), *_tensors(config, rank, tensors)]


def _settings(config: Mapping[str, Any], rank: int) -> list[str]:
    """Problems of `adapter_config.json`."""
    problems = []
    alpha = config.get("lora_alpha")
    if alpha is None:
        problems.append("lora_alpha is missing: vLLM requires it")
    elif isinstance(alpha, bool) or not isinstance(alpha, int | float):
        problems.append(f"lora_alpha is {alpha!r}, not a number: vLLM divides it by r")
    targets = config.get("target_modules")
    if targets is None:
        problems.append("target_modules is missing: vLLM requires it")
    elif not isinstance(targets, list) or not targets:
        problems.append("target_modules is not a list of names: SGLang takes no pattern")
    problems += [f"{key} is set: {reason}" for key, reason in _UNSERVED.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        problems.append(f"bias is {config['bias']!r}: vLLM rejects trained biases")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in BASE_KEPT:
        problems.append(
            f"init_lora_weights is {start!r}: that changes the base's own weights, and servers do "
            "not"
        )
    if rank < 1 or rank > _RANKS[-1]:
        problems.append(f"r is {rank}: vLLM takes ranks from 1 to {_RANKS[-1]}")
    elif rank > _SERVED_RANK:
        enough = next(r for r in _RANKS if r >= rank)
        problems.append(
            f"r is {rank}: start vLLM with --max-lora-rank {enough} or more (its default is "
            f"{_SERVED_RANK})"
        )
    return problems


def _tensors(config: Mapping[str, Any], rank: int, tensors: Mapping[str, Tensor]) -> list[str]:
    """Problems of `adapter_model.safetensors`."""
    problems = []
    halves: dict[str, set[str]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.+)\.(?:lora_([AB])\.weight|lora_embedding_([AB]))", name)
        if match is None:
            problems.append(f"tensor {name!r} is neither A nor B of a module")
            continue
        if not name.startswith(PREFIX):
            problems.append(f"tensor {name!r} does not begin with {PREFIX!r}, as PEFT's do")
        half = match[2] or match[3]
        halves.setdefault(match[1].removeprefix(PREFIX), set()).add(half)
        own = tensor.shape[0 if half == "A" else 1] if tensor.dim() == 2 else None
        if own != rank and not config.get("rank_pattern"):
            problems.append(f"tensor {name!r} has rank {own}, not r = {rank}")
    targets = config.get("target_modules")
    names = targets if isinstance(targets, list) else []
    for module, found in halves.items():
        if len(found) < 2:
            missing = "B" if "A" in found else "A"
            problems.append(f"module {module!r} has no {missing}")
        if names and not any(module == n or module.endswith(f".{n}") for n in names):
            # vLLM goes by the tensors, PEFT by the list: the two would serve different adapters.
            problems.append(f"module {module!r} is not in target_modules: stock PEFT leaves it out")
    return problems
