"""Where generators are found, and the dtype in which their tensors are stored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import RunError, RunNotFoundError, WeightsError
from hypergen._utils.io import atomic_folder, read_json, save_safetensors, write_json, write_text
from hypergen.conditions import NoCondition

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


def save_generator(
    folder: str | Path,
    module: nn.Module,
    config: Mapping[str, Any],
    card: str,
    dtype: torch.dtype | None = None,
) -> Path:
    """Writes a generator's config, tensors and card, atomically; see `Generator.save_pretrained`.

    Raises:
        WeightsError: A tensor is NaN or infinite, or becomes infinite in `dtype`; nothing is
            written.
    """
    folder = Path(folder)
    state = module.state_dict()
    if dtype is not None:
        state = {name: rounded(name, tensor, dtype) for name, tensor in state.items()}
    with atomic_folder(folder, overwrite=True) as temporary:
        save_safetensors(temporary / WEIGHTS_FILE, state, {"format": "pt"}, check_finite=True)
        write_json(temporary / CONFIG_FILE, config)
        write_text(temporary / "README.md", card)
    return folder


def model_card(module: nn.Module, provenance: Mapping[str, Any], text: str, use: str) -> str:
    """The README.md of a generator's folder.

    Args:
        module: The generator.
        provenance: What it was made from; its `license` goes into the header too.
        text: What it generates.
        use: How it is used.
    """
    license = provenance.get("license")
    return "\n".join(
        [
            "---",
            "library_name: hypergen",
            *([f"license: {license}"] if license else []),
            "tags:",
            "- hypergen",
            "- hypernetwork",
            "---",
            "",
            f"# {type(module).__name__}",
            "",
            text,
            "",
            *(f"- {key}: {value}" for key, value in sorted(provenance.items())),
            "",
            use,
            "",
        ]
    )


def load_strict(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Loads every tensor of a module; none may lack, be left over or have another shape.

    Raises:
        RunError: Otherwise; names the tensor. Nothing is loaded then.
    """
    expected = module.state_dict()
    for key in expected:
        if key not in state:
            raise RunError(f"{origin} lacks the tensor {key!r}")
    for key, tensor in state.items():
        if key not in expected:
            raise RunError(f"{origin} has an unexpected tensor {key!r}")
        if tensor.shape != expected[key].shape:
            raise RunError(
                f"{origin}: tensor {key!r} has shape {list(tensor.shape)}, expected "
                f"{list(expected[key].shape)}"
            )
    module.load_state_dict(dict(state), strict=True)


def takes_nothing(run: str | Path) -> bool:
    """Whether a run folder holds a generator without a condition; False for what is no folder."""
    paths = (Path(run) / "generator" / CONFIG_FILE, Path(run) / CONFIG_FILE)
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        return False
    encoder = read_json(found).get("encoder")
    return isinstance(encoder, dict) and encoder.get("class") == NoCondition.__name__
