"""Where generators are found, and the dtype in which their tensors are stored."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from hypergen._utils.errors import RunNotFoundError, WeightsError

CONFIG_FILE, WEIGHTS_FILE = "generator.json", "generator.safetensors"


def rounded(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A floating-point tensor in another dtype; others as they are.

    Raises:
        WeightsError: The dtype holds no fractions, or an entry is too large for it.
    """
    if not dtype.is_floating_point:
        raise WeightsError(f"dtype {dtype} holds whole numbers: give torch.bfloat16 or float16")
    if not tensor.is_floating_point():
        return tensor
    out = tensor.to(dtype)
    if bool((torch.isinf(out) & torch.isfinite(tensor)).any()):
        raise WeightsError(
            f"tensor {name!r} holds {float(tensor.abs().max()):.3g}, above what {dtype} holds "
            f"({torch.finfo(dtype).max:.3g}): store it as torch.bfloat16 or in its own dtype"
        )
    return out


def download(name: str) -> str:
    """A folder as it is; a hub name (`owner/repository`) as its downloaded snapshot."""
    if Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        return name
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return name
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return snapshot_download(name, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE])
    except (HfHubHTTPError, OSError) as error:
        raise RunNotFoundError(
            f"{name!r} is neither a folder nor a hub repository that can be reached"
        ) from error
