"""Named tensors out of files, without running anything that a file holds."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import RunError
from hypergen._utils.io import load_safetensors
from hypergen.zoo.importing.report import SkipFile

# (name, shape, dtype) of each tensor, by name.
Layout = tuple[tuple[str, tuple[int, ...], str], ...]

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_SLACK = 1 << 20  # bytes by which a compressed archive may grow


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        SkipFile: It is damaged or no such file.
    """
    try:
        return load_safetensors(path)
    except RunError as error:
        reason = str(error).removeprefix(f"{path} ")
        raise SkipFile(f"it {reason}") from error
    except Exception as error:  # a dtype that this torch lacks
        raise SkipFile(f"it cannot be read: {_line(error)}") from error


def read_torch(path: Path) -> Any:
    """Reads a file of `torch.save`: tensors, numbers, texts and containers of them only.

    Raises:
        SkipFile: It is damaged, no such file, or holds other Python objects, which are not made.
    """
    import pickle

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > 2 * path.stat().st_size + _SLACK:
                raise SkipFile(f"it unpacks to {unpacked:,} bytes: torch.save does not compress")
        elif not _starts_as_pickle(path):
            raise SkipFile("it is no file of torch.save")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old file formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except SkipFile:
        raise
    except pickle.UnpicklingError as error:
        raise SkipFile(
            "it holds Python objects that could run code, and was not opened: save the tensors "
            "alone, torch.save(model.state_dict(), …) or safetensors.torch.save_model(model, …)"
        ) from error
    except Exception as error:  # a damaged file can raise anything
        raise SkipFile(f"it is damaged or no file of torch.save: {_line(error)}") from error


def _starts_as_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__


def unwrap(data: Any) -> tuple[dict[str, Any], list[str]]:
    """Finds the state dict in what a file holds.

    Args:
        data: A state dict, or an object that has one under `state_dict`, `model_state_dict` or
            `model`.

    Returns:
        The state dict, and the names of what lies beside it.

    Raises:
        SkipFile: There is none.
    """
    beside: list[str] = []
    for _ in range(4):  # a hostile file can hold itself
        if not isinstance(data, Mapping):
            break
        inner = next((key for key in _WRAPPERS if isinstance(data.get(key), Mapping)), None)
        if inner is None:
            break
        beside += [f"{key} ({type(data[key]).__name__})" for key in data if key != inner]
        data = data[inner]
    if not isinstance(data, Mapping) or not any(isinstance(v, Tensor) for v in data.values()):
        raise SkipFile("it holds no state dict: no object of named tensors")
    if not all(isinstance(name, str) and name and name.isprintable() for name in data):
        raise SkipFile("its state dict has names that are not plain text")
    return dict(data), beside


def floating(data: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors that slots can hold, contiguous.

    Returns:
        Floating-point tensors by name, and what is left out, with its type.

    Raises:
        SkipFile: A tensor is of an unknown dtype or layout, or there is none.
    """
    taken: dict[str, Tensor] = {}
    left_out: list[str] = []
    for name, value in data.items():
        if not isinstance(value, Tensor):
            left_out.append(f"{name} ({type(value).__name__})")
            continue
        kind = str(value.dtype).removeprefix("torch.")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise SkipFile(f"tensor {name!r} is sparse, quantised or without values")
        if value.dtype in FLOATING and value.numel():
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise SkipFile(f"tensor {name!r} claims more numbers than the file stores")
            taken[name] = value.detach().contiguous()
        elif value.dtype in FLOATING:
            left_out.append(f"{name} (empty)")
        elif value.is_floating_point() or value.is_complex():
            raise SkipFile(f"tensor {name!r} is {kind}: a slot is {', '.join(_NAMES)}")
        else:
            left_out.append(f"{name} ({kind})")
    if not taken:
        raise SkipFile("it holds no floating-point tensor")
    stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in taken.values()}
    if sum(t.numel() * t.element_size() for t in taken.values()) > 8 * sum(stored.values()):
        raise SkipFile("its tensors repeat the same stored numbers many times over")
    return taken, left_out


_NAMES = [str(dtype).removeprefix("torch.") for dtype in FLOATING]


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Removes what `DataParallel` and `torch.compile` put before every name."""
    while True:
        prefix = next((p for p in _PREFIXES if all(n.startswith(p) for n in tensors)), None)
        if prefix is None or prefix in tensors:
            return tensors
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """Names, shapes and dtypes, sorted; equal layouts are one object."""
    return _shared(
        tuple(
            (name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in sorted(tensors.items())
        )
    )


@lru_cache(maxsize=4096)
def _shared(layout: Layout) -> Layout:
    return layout


def digest(tensors: Mapping[str, Tensor], meaning: str) -> str:
    """SHA-256 of named numbers, and of what else decides what they do."""
    out = hashlib.sha256(meaning.encode("utf-8", "surrogatepass"))
    for name, tensor in sorted(tensors.items()):
        out.update(f"{name!r}{tensor.dtype}{tuple(tensor.shape)}".encode("utf-8", "replace"))
        out.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return out.hexdigest()


def widest(*dtypes: str) -> str:
    """Name of the smallest dtype that holds each of some dtypes exactly."""
    out: torch.dtype = getattr(torch, dtypes[0])
    for name in dtypes[1:]:
        out = torch.promote_types(out, getattr(torch, name))
    return str(out).removeprefix("torch.")
