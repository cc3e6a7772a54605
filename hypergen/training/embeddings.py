"""Descriptions encoded once and for all: kept under the hash of what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hypergen._utils.errors import RunError
from hypergen._utils.io import load_safetensors, save_safetensors
from hypergen.conditions import Condition, ConditionEncoder


def cached_condition(
    encoder: ConditionEncoder,
    raw: list[Any],
    encode: Callable[[], Condition],
    folder: str | Path | None = None,
) -> Condition:
    """Encodes raw inputs, or finds them encoded.

    Args:
        encoder: A frozen encoder; its class, arguments and fingerprint are part of the hash.
        raw: The inputs, JSON-serialisable.
        encode: Encodes them; called unless they are found.
        folder: Where conditions are kept as safetensors between runs; nowhere when not given.
    """
    if folder is None:
        return encode()
    content = json.dumps([encoder.to_dict(), raw], sort_keys=True)
    path = Path(folder) / f"{hashlib.sha256(content.encode()).hexdigest()}.safetensors"
    found = _stored(path)
    if found is None:
        found = encode().to("cpu")
        tensors = {"tokens": found.tokens, "mask": found.mask, "pooled": found.pooled}
        if found.signals is not None:
            tensors["signals"] = found.signals
        save_safetensors(path, tensors)
    return found


def _stored(path: Path) -> Condition | None:
    if not path.is_file():
        return None
    try:
        tensors = load_safetensors(path)
    except RunError:
        return None  # a damaged file is made again
    if set(tensors) - {"signals"} != {"tokens", "mask", "pooled"}:
        return None
    mask = tensors["mask"].to(torch.bool)
    return Condition(tensors["tokens"], mask, tensors["pooled"], tensors.get("signals"))
