"""Files: written whole or not at all, read with errors that name them.

Everything hypergen stores is text, JSON or safetensors; nothing is pickled.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hypergen._utils.errors import RunError, RunNotFoundError, UsageError, WeightsError

if TYPE_CHECKING:
    import torch

PathLike = str | os.PathLike[str]
NonFinite = Literal["raise", "null"]


def write_text(path: PathLike, text: str) -> Path:
    """Writes text as UTF-8, atomically; makes missing folders.

    Args:
        path: File to write or replace.
        text: Its whole contents.

    Returns:
        The path.
    """
    return _replace(path, lambda temporary: temporary.write_bytes(text.encode("utf-8")))


def dump_json(value: Any, nonfinite: NonFinite = "raise") -> str:
    """Returns standard JSON, keys sorted, indented by 2, ending in a newline.

    Args:
        value: Dictionaries with string keys, lists, tuples, strings, numbers, booleans, None,
            paths, NumPy arrays and scalars, detached tensors.
        nonfinite: What NaN and infinity, which JSON lacks, become: an error or `null`.

    Raises:
        RunError: A value is not finite and `nonfinite` is "raise"; the message says where.
        TypeError: A value has no JSON form.
    """
    plain = _plain(value, "", nonfinite)
    return json.dumps(plain, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path: PathLike, value: Any, nonfinite: NonFinite = "raise") -> Path:
    """Writes `dump_json(value, nonfinite)` atomically and returns the path.

    Raises:
        RunError: A value is not finite and `nonfinite` is "raise"; nothing is written.
        TypeError: A value has no JSON form; nothing is written.
    """
    try:
        text = dump_json(value, nonfinite)
    except RunError as error:
        raise RunError(f"{path}: {error}") from None
    return write_text(path, text)


def read_json(path: PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        RunNotFoundError: The file does not exist.
        RunError: The file cannot be read, is not UTF-8 or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunNotFoundError(f"{path} does not exist") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # of the JSON or of the encoding
        raise RunError(f"{path} is not valid JSON: {error}") from error


def save_safetensors(
    path: PathLike,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    check_finite: bool = False,
) -> Path:
    """Writes tensors as one safetensors file, atomically; equal input gives equal bytes.

    Tensors are detached, moved to the CPU and made contiguous; those that share memory with
    another one are copied, so that each name is stored whole.

    Args:
        path: File to write or replace.
        tensors: Tensors by name.
        metadata: Strings to store in the header.
        check_finite: Whether to refuse tensors that hold NaN or infinity.

    Returns:
        The path.

    Raises:
        WeightsError: `check_finite` is set and a tensor is not finite; nothing is written.
    """
    import torch
    from safetensors.torch import save_file

    ready: dict[str, torch.Tensor] = {}
    taken: list[tuple[int, int]] = []
    for name, tensor in tensors.items():
        if check_finite and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{path}: tensor '{name}' holds NaN or infinity and was not written")
        value = tensor.detach().to("cpu").contiguous()
        start = value.data_ptr()
        end = start + value.numel() * value.element_size()
        if any(start < other_end and other_start < end for other_start, other_end in taken):
            value = value.clone()
        else:
            taken.append((start, end))
        ready[name] = value

    def write(temporary: Path) -> None:
        temporary.touch()
        mode = temporary.stat().st_mode  # as every other file's; the library keeps others out
        save_file(ready, temporary, metadata=dict(metadata or {}) or None)
        temporary.chmod(mode)
        _sort_metadata(temporary)

    return _replace(path, write)


def load_safetensors(path: PathLike) -> dict[str, torch.Tensor]:
    """Reads all tensors of a safetensors file, onto the CPU.

    Raises:
        RunNotFoundError: The file does not exist.
        RunError: The file is corrupt, cut short or not safetensors.
    """
    from safetensors.torch import load_file

    with _reading(path):
        return dict(load_file(os.fspath(path)))


def load_safetensors_metadata(path: PathLike) -> dict[str, str]:
    """Reads the metadata of a safetensors file without its tensors.

    Raises:
        RunNotFoundError: The file does not exist.
        RunError: The file is corrupt, cut short or not safetensors.
    """
    from safetensors import safe_open

    with _reading(path), safe_open(os.fspath(path), framework="pt") as file:
        return dict(file.metadata() or {})


def inside(folder: PathLike, relative: PathLike) -> Path:
    """Returns `folder / relative`, if that is inside the folder once links are followed.

    Use it for every path that comes from a file or a request.

    Raises:
        RunError: The path is absolute, climbs out by `..` or leaves through a link.
    """
    root = Path(folder).resolve()
    joined = (root / relative).resolve()
    if Path(relative).is_absolute() or not joined.is_relative_to(root):
        raise RunError(f"'{relative}' is not inside {folder}")
    return joined


@contextmanager
def atomic_folder(path: PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Lets a block fill a folder that appears under its name only when the block succeeds.

    Args:
        path: The folder to make; one that exists and is empty counts as absent.
        overwrite: Whether to replace a folder that holds something. The old one stays until
            the new one is complete.

    Yields:
        A temporary folder beside `path`, renamed at the end and removed upon failure.

    Raises:
        UsageError: `path` is a file, or holds something and `overwrite` is not set.
    """
    target = Path(path)
    if (target.exists() or target.is_symlink()) and not target.is_dir():
        raise UsageError(f"{target} is not a folder; choose another name")
    if not overwrite and target.is_dir() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty; choose another folder or remove it first")
    if target.is_symlink():
        target = target.resolve()  # replace what the link points to, keep the link
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(target)
    old = _sibling(target)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        _sync(temporary)
        if target.exists():
            target.rename(old)
        try:
            temporary.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def _sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(path: PathLike, write: Callable[[Path], object]) -> Path:
    with replacing(path) as temporary:
        write(temporary)
    return Path(path)


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Lets a block write beside `path`, flushes, and renames; leaves nothing behind upon failure.

    Args:
        path: File to write or replace; missing folders are made.

    Yields:
        Path of the temporary file.

    Raises:
        UsageError: `path` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{target} is a folder, not a file; choose another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(target)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(target.parent)


@contextmanager
def _reading(path: PathLike) -> Iterator[None]:
    from safetensors import SafetensorError

    if not Path(path).is_file():
        raise RunNotFoundError(f"{path} does not exist")
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} is not a valid safetensors file: {error}") from error


def _sort_metadata(path: Path) -> None:
    """Rewrites the header's metadata in sorted order; the library writes it in random order."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if len(header.get("__metadata__", {})) < 2:
            return
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
        if len(text) > size:
            raise RunError(f"{path}: the safetensors header cannot be put in order")
        file.seek(8)
        file.write(text.ljust(size))


def _plain(value: Any, where: str, nonfinite: NonFinite) -> Any:
    """Reduces a value to what `json` writes, and says where it finds NaN or infinity."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        if nonfinite == "null":
            return None
        raise RunError(f"the value at '{where}' is {value}, which JSON cannot hold")
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} at '{where}' is not a string")
        return {
            key: _plain(item, f"{where}.{key}" if where else key, nonfinite)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]", nonfinite) for i, item in enumerate(value)]
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, tensors
        return _plain(value.tolist(), where, nonfinite)
    raise TypeError(f"the {type(value).__name__} at '{where}' has no JSON form")
