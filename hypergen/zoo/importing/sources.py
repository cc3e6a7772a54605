"""Finding what may hold weights: folders, files and lists of hub names."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hypergen._utils.errors import RunError, UsageError
from hypergen.specs.files import PEFT_CONFIG, PEFT_WEIGHTS
from hypergen.zoo.importing.report import Entry, Status
from hypergen.zoo.store.paths import ZOO_FILE

Kind = Literal["auto", "peft", "state_dict", "lightning"]
KINDS: tuple[Kind, ...] = ("auto", "peft", "state_dict", "lightning")

_TORCH = (".pt", ".pth", ".ckpt")
_TEXT = frozenset(
    [
        ".cfg",
        ".csv",
        ".css",
        ".gitattributes",
        ".gitignore",
        ".html",
        ".ini",
        ".ipynb",
        ".jinja",
        ".jpeg",
        ".jpg",
        ".js",
        ".json",
        ".jsonl",
        ".lock",
        ".log",
        ".md",
        ".out",
        ".pdf",
        ".png",
        ".py",
        ".rst",
        ".sh",
        ".svg",
        ".toml",
        ".tsv",
        ".txt",
        ".yaml",
        ".yml",
    ]
)
_TRAINER = re.compile(
    r"(optimizer|scheduler|scaler|training_args)\.(pt|bin)|rng_state.*\.pth|optimizer.*\.safetensors"
)
_PIECE = re.compile(r"-\d+-of-\d+\.")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True)
class Found:
    """A file, or a PEFT adapter's folder, that may hold weights.

    Attributes:
        file: The file with the weights.
        path: Where it lies, relative to the folder that was given; the folder for an adapter.
        home: Name of the folder that was given.
        adapter: Whether it is a PEFT adapter.
        origin: What else is known of where it comes from, JSON-serialisable.
    """

    file: Path
    path: str
    home: str
    adapter: bool = False
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        """The adapter's configuration."""
        return self.file.with_name(PEFT_CONFIG)


@dataclass(frozen=True)
class _Root:
    """One source: where to look, what links may lead to, and how its paths are shown."""

    folder: Path
    name: str
    only: Path | None = None
    home: str = ""
    limit: Path | None = None
    origin: dict[str, Any] = field(default_factory=dict)


def find(sources: Sequence[str | Path], kind: Kind, zoo: Path) -> Iterator[Found | Entry]:
    """Walks the sources, sorted.

    Args:
        sources: Folders, files, and `.txt` files that list hub names, one a line.
        kind: What to look for.
        zoo: The zoo that is written, which is no source of itself.

    Yields:
        What may hold weights, and an entry of the report for everything else.

    Raises:
        UsageError: A source does not exist, or a line of a list is no hub name.
        RunError: A hub name cannot be downloaded.
    """
    roots = list(_roots(sources))
    names = _distinct([(root.name, root.folder) for root in roots])
    for root, name in zip(roots, names, strict=True):
        # Runs of several folders may have one name: their folders tell them apart.
        prefix = f"{name}/" if len(roots) > 1 and root.only is None else ""
        shown = name if root.only is not None else ""
        yield from _walk(root, prefix, shown, kind, zoo)


def _roots(sources: Sequence[str | Path]) -> Iterator[_Root]:
    if not sources:
        raise UsageError("name at least one folder or file to import")
    for source in map(Path, sources):
        path = source.resolve()
        if path.is_dir():
            yield _Root(path, path.name, home=path.name)
        elif path.suffix == ".txt" and path.is_file():
            yield from (_download(source, name) for name in _hub_names(source))
        elif path.is_file():
            yield _Root(path.parent, source.name, only=path, home=path.parent.name)
        else:
            raise UsageError(
                f"{source} does not exist; names on the hub go into a .txt file, one a line"
            )


def _hub_names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    names = [line.partition("#")[0].strip() for line in lines]
    names = list(dict.fromkeys(name for name in names if name))
    if not names:
        raise UsageError(f"{path} lists no hub name: write owner/name, one a line")
    for name in names:
        if not _HUB_NAME.fullmatch(name) or ".." in name:
            raise UsageError(f"{path}: {name!r} is no hub name: write owner/name[@revision]")
    return names


def _download(listed_in: Path, name: str) -> _Root:
    """Fetches the safetensors and JSON files of a hub repository, nothing else."""
    from huggingface_hub import constants, snapshot_download

    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(
            repository, revision=revision or None, allow_patterns=["*.safetensors", "*.json"]
        )
    except Exception as error:  # of the hub, of the network or of the disk
        offline = (
            " (the hub is switched off by HF_HUB_OFFLINE=1)" if constants.HF_HUB_OFFLINE else ""
        )
        text = " ".join(str(error).split())
        raise RunError(
            f"{listed_in}: {name} cannot be downloaded{offline}: {text or type(error).__name__}"
        ) from error
    path = Path(folder).resolve()
    # Files of a snapshot are links into the folder of blobs beside it.
    limit = path.parent.parent if path.parent.name == "snapshots" else path
    return _Root(
        path,
        repository,
        home=repository,
        limit=limit,
        origin={"hub": repository, "revision": path.name},
    )


def _distinct(roots: list[tuple[str, Path]]) -> list[str]:
    names: list[str] = []
    for name, folder in roots:
        if name in names:
            name = f"{folder.parent.name if folder.name == name else folder.name}/{name}"
        number, first = 2, name
        while name in names:
            name, number = f"{first}~{number}", number + 1
        names.append(name)
    return names


def _walk(root: _Root, prefix: str, shown: str, kind: Kind, zoo: Path) -> Iterator[Found | Entry]:
    limit = root.limit or root.folder
    for path in [root.only] if root.only else _files(root.folder, zoo):
        relative = path.relative_to(root.folder).as_posix()
        name = shown or prefix + relative
        reason = _unsafe(path, limit)
        if not name.isprintable():  # bytes that are no UTF-8 end up as such characters too
            yield Entry(ascii(name), "skipped", "its name has characters that are not text")
        elif reason:
            yield Entry(name, "skipped", reason)
        elif path.is_dir():
            readable = os.access(path, os.R_OK | os.X_OK)
            status: Status = "ignored" if readable else "skipped"
            yield Entry(name, status, _folder_reason(path, zoo) if readable else "not readable")
        else:
            adapter = kind in ("auto", "peft") and (path.parent / PEFT_CONFIG).exists()
            verdict = _judge(path, kind, adapter)
            if isinstance(verdict, Entry):
                yield Entry(name, verdict.status, verdict.reason)
            elif adapter and path.name == PEFT_WEIGHTS:
                config = _unsafe(path.with_name(PEFT_CONFIG), limit)
                if config:
                    yield Entry(name, "skipped", f"{PEFT_CONFIG}: {config}")
                    continue
                folder = name.rpartition("/")[0] or root.home
                yield Found(path, folder, root.home, True, root.origin)
            else:
                yield Found(path, name, root.home, False, root.origin)


def _files(folder: Path, zoo: Path) -> Iterator[Path]:
    """Files below a folder, sorted; folders only where they are not entered."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield folder
        return
    for entry in entries:
        path = Path(entry.path)
        inner = entry.is_dir(follow_symlinks=False)
        if inner and path.resolve() != zoo and not (path / ZOO_FILE).exists():
            yield from _files(path, zoo)
        else:
            yield path


def _folder_reason(path: Path, zoo: Path) -> str:
    if path.is_symlink():
        return "a link to a folder that lies among the sources itself"
    if path.resolve() == zoo:
        return "the zoo that is written"
    return "a zoo already: hypergen reads it as it is"


def _unsafe(path: Path, limit: Path) -> str:
    """Why a path must not be opened; empty when it may."""
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError):
        return "a link that leads nowhere"
    if not real.is_relative_to(limit):
        return "a link that leaves the folder: copy the file into it, or name it as a source"
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return "neither a file nor a folder"
    return ""


def _judge(path: Path, kind: Kind, adapter: bool) -> Entry | None:
    """An entry for a file without weights, or with weights in a form that is not taken."""

    def skipped(reason: str) -> Entry:
        return Entry("", "skipped", reason)

    def ignored(reason: str) -> Entry:
        return Entry("", "ignored", reason)

    name, suffix = path.name, path.suffix.lower()
    if _TRAINER.fullmatch(name):
        return ignored("state of a trainer, not weights")
    if suffix == ".bin":
        if adapter and path.with_name(PEFT_WEIGHTS).exists():
            return ignored(f"{PEFT_WEIGHTS} beside it is taken")
        save = "PeftModel.from_pretrained(…).save_pretrained(…)" if adapter else "safetensors"
        return skipped(f"a pickle, which can run code: convert it with {save} and import that")
    if (
        name == PEFT_CONFIG
        and adapter
        and not any(
            path.with_name(weights).exists() for weights in (PEFT_WEIGHTS, "adapter_model.bin")
        )
    ):
        return skipped(f"{PEFT_WEIGHTS} is missing beside it")
    if name.startswith(".") or suffix in _TEXT or "tfevents" in name or not suffix:
        return ignored("a file without weights")
    if suffix not in (".safetensors", *_TORCH):
        return skipped(
            f"{suffix} files are foreign: PEFT adapters, .safetensors, .pt, .pth and .ckpt are read"
        )
    if suffix == ".safetensors" and _PIECE.search(name):
        return skipped("one piece of a checkpoint in several files: save it as a single file")
    if kind in ("auto", "peft") and name == PEFT_WEIGHTS and not adapter:
        return skipped(f"{PEFT_CONFIG} is missing beside it")
    if kind == "peft" and not (adapter and name == PEFT_WEIGHTS):
        return ignored("not a PEFT adapter (--kind peft)")
    if kind == "lightning" and suffix not in _TORCH:
        return ignored("not a Lightning checkpoint (--kind lightning)")
    return None
