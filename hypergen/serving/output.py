"""Folders that `hypergen generate` writes: all or none, and never over something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hypergen._utils.errors import RunError, UsageError
from hypergen._utils.io import atomic_folder, read_json, write_json
from hypergen.serving.merge import MARK_FILE
from hypergen.specs import Weights

INDEX_FILE = "index.json"  # folder → what its network was made from

# What a folder of generated weights may hold.
_CONFIGS = {"adapter_config.json", "spec.json", "bottleneck.json"}
_FILES = {
    *_CONFIGS,
    "README.md",
    "adapter_model.safetensors",
    "model.safetensors",
    "delta.safetensors",
    "bottleneck.safetensors",
}


def save_networks(
    networks: Sequence[Weights],
    titles: Sequence[str],
    out: Path,
    write: Callable[[Weights, Path], object],
) -> list[Path]:
    """Writes all networks or none; a folder that was there is replaced as a whole.

    Args:
        networks: Weights of batch size 1.
        titles: What each was made from: a sentence, or the name of a file.
        out: One network goes here, several into `out/0000`, `out/0001`, … beside `index.json`,
            which says what each was made from.
        write: Writes one network as a folder.

    Returns:
        The folder of each network.
    """
    if len(networks) == 1:
        write(networks[0], out)
        return [out]
    names = [f"{i:04d}" for i in range(len(networks))]
    with atomic_folder(out, overwrite=True) as temporary:
        for name, one in zip(names, networks, strict=True):
            write(one, temporary / name)
        write_json(temporary / INDEX_FILE, dict(zip(names, titles, strict=True)))
    return [out / name for name in names]


def check_out(out: Path) -> None:
    """Refuses a folder that holds anything but earlier results: it will be replaced.

    Raises:
        UsageError: It is a file, or holds something else; names that.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    if not out.is_dir() or _is_result(out):
        return
    paths = sorted(out.iterdir())
    results = {p for p in paths if p.is_dir() and p.name.isdigit() and _is_result(p)}
    for path in paths:
        is_index = path.name == INDEX_FILE and results
        if path not in results and not is_index:
            raise UsageError(f"--out {out} holds {path.name!r}; choose another folder")


def _is_result(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    if MARK_FILE in names:  # a merged model: its files have the names of any model's
        try:
            known = set(read_json(folder / MARK_FILE)["files"])
        except (RunError, KeyError, TypeError):
            return False
        return names <= {MARK_FILE, *known}
    return bool(names & _CONFIGS) and names <= _FILES
