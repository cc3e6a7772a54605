"""Text tasks in the format of Super-NaturalInstructions.

Wang et al., "Super-NaturalInstructions: Generalization via Declarative Instructions on 1600+ NLP
Tasks", EMNLP 2022, arXiv:2204.07705.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hypergen._utils.errors import RunError, UsageError, did_you_mean
from hypergen._utils.io import read_json

INDEX_FILE = "tasks_index.csv"
TEST_SHARE = 0.2
# Outputs that are a closed set in fact, though the file does not say so (letters, states, jobs).
MAX_INFERRED_LABELS = 64


class TaskFileError(UsageError):
    """A task file cannot be read.

    Attributes:
        path: The file.
        field: The key that is missing or wrong, such as `Instances[3].output`; empty when the
            file as a whole is no JSON object.
    """

    def __init__(self, path: Path, field: str, what: str) -> None:
        super().__init__(f"{path}: field {field!r} {what}" if field else f"{path} {what}")
        self.path, self.field = path, field


@dataclass(frozen=True)
class Instance:
    """One input and the outputs that count as right, the first of which is trained on."""

    input: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class TextTask:
    """One task: what to do in words, and inputs with their outputs.

    Attributes:
        name: The file's name without its ending.
        family: Tasks of one family share data or skill and never straddle splits.
        descriptions: Wordings of what to do, at least one.
        examples: Demonstrations that are part of the task's definition.
        instances: Split → instances.
        labels: The closed set of outputs as the file gives it; empty for open outputs.
        metadata: Categories, domains, sources, licence, as the file gives them.
    """

    name: str
    family: str
    descriptions: tuple[str, ...]
    instances: Mapping[str, tuple[Instance, ...]]
    examples: tuple[Instance, ...] = ()
    labels: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what is learned (not of the name): equal content, equal hash."""
        content = {
            "descriptions": self.descriptions,
            "examples": [(e.input, e.outputs) for e in self.examples],
            "instances": {
                split: [(i.input, i.outputs) for i in rows]
                for split, rows in self.instances.items()
            },
            "labels": self.labels,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def inferred_labels(self) -> tuple[str, ...]:
        """The labels; where there are none, the outputs if they are few enough to be a closed set.

        Few means: at most 64 different ones, each used at least four times on average.
        """
        if self.labels:
            return self.labels
        first = [i.outputs[0] for rows in self.instances.values() for i in rows]
        distinct = sorted(set(first))
        few = len(distinct) <= MAX_INFERRED_LABELS and 4 * len(distinct) <= len(first)
        return tuple(distinct) if few else ()

    @cached_property
    def picks_from_list(self) -> bool:
        """Whether every output is one of the items that its input lists, parted by commas."""
        rows = [i for rows in self.instances.values() for i in rows]
        return all(len(set(items(i))) > 1 and i.outputs[0] in items(i) for i in rows)

    def choices(self, instance: Instance) -> tuple[str, ...]:
        """Outputs to choose from: the closed set, or the items of the input; none if open."""
        if self.labels:
            return self.labels
        if self.picks_from_list:
            return tuple(dict.fromkeys(items(instance)))
        return self.inferred_labels


def items(instance: Instance) -> list[str]:
    """The parts of an input between commas."""
    return [part.strip() for part in instance.input.split(",")]


def read_tasks(
    folder: str | Path,
    *,
    strict: bool = False,
    families: Sequence[str] | None = None,
    without_families: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> tuple[list[TextTask], list[TaskFileError]]:
    """Reads every `*.json` of a folder, in the order of the names.

    The layout of the real repository (a `tasks` folder inside) is understood. A `tasks_index.csv`
    with the columns `task` and `family`, in the folder or in its parent, gives the families; other
    tasks belong to the family of their first category.

    Args:
        folder: Where the files are.
        strict: Raise the first error instead of collecting errors.
        families: Only tasks of these families.
        without_families: No tasks of these families.
        names: Only these tasks.

    Returns:
        The tasks, and one error for each file that was skipped.

    Raises:
        UsageError: The folder is missing or holds no task, the index is malformed, or a family or
            name that is asked for does not occur.
        TaskFileError: A file is malformed and `strict` is set; or all of them are.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of task files")
    if not any(folder.glob("*.json")) and (folder / "tasks").is_dir():
        folder = folder / "tasks"
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UsageError(f"{folder} holds no task: put one JSON file a task there")
    index = _read_index(folder)
    tasks: list[TextTask] = []
    errors: list[TaskFileError] = []
    for path in paths:
        if names is not None and path.stem not in names:
            continue
        try:
            tasks.append(read_task(path, index.get(path.stem)))
        except TaskFileError as error:
            if strict:
                raise
            errors.append(error)
    if not tasks and errors:
        raise errors[0]
    unread = {error.path.stem for error in errors}
    _check_known("task", set(names or ()) - unread, {t.name for t in tasks})
    known = {t.family for t in tasks} | set(index.values())
    _check_known("family", {*(families or ()), *without_families}, known)
    kept = [t for t in tasks if t.family not in without_families]
    if families is not None:
        kept = [t for t in kept if t.family in families]
    return kept, errors


def _check_known(kind: str, wanted: set[str], known: set[str]) -> None:
    for name in sorted(wanted - known):
        raise UsageError(f"no {kind} {name!r} in the folder.{did_you_mean(name, known)}")


def read_task(path: str | Path, family: str | None = None) -> TextTask:
    """Reads one task file.

    Instances without a `split` are split by the hash of their inputs: a fifth of the different
    inputs, the same in every process, are `"test"`.

    Args:
        path: The file.
        family: Its family; that of its first category (else its own name) when not given.

    Raises:
        TaskFileError: It is not JSON, has no instances, or a field is missing or wrong.
    """
    path = Path(path)
    try:
        data = read_json(path)
    except RunError as error:
        reason = str(error).removeprefix(f"{path} ")
        raise TaskFileError(path, "", reason) from error
    if not isinstance(data, dict):
        raise TaskFileError(path, "", f"holds a {type(data).__name__}, not one JSON object")
    definition = data.get("Definition")
    definition = [definition] if isinstance(definition, str) else definition
    descriptions = _texts(path, "Definition", definition)
    if not descriptions:
        raise TaskFileError(path, "Definition", "is empty: give at least one description")
    category = _texts(path, "Categories", data.get("Categories") or [])
    labels = tuple(dict.fromkeys(_texts(path, "Labels", data.get("Labels") or [])))
    return TextTask(
        name=path.stem,
        family=family or (category[0] if category else path.stem),
        descriptions=tuple(text.strip() for text in descriptions),
        instances=_instances(path, data, labels),
        examples=tuple(
            _instance(path, f"Positive Examples[{i}]", example)
            for i, example in enumerate(_list(path, "Positive Examples", data, optional=True))
        ),
        labels=labels,
        metadata={
            key: data[key]
            for key in ("Categories", "Domains", "Source", "URL", "Instance License")
            if data.get(key)
        },
    )


def _instances(
    path: Path, data: Mapping[str, Any], labels: Sequence[str]
) -> dict[str, tuple[Instance, ...]]:
    raw = _list(path, "Instances", data)
    if not raw:
        raise TaskFileError(path, "Instances", "is empty: a task needs instances")
    rows = [_instance(path, f"Instances[{i}]", value) for i, value in enumerate(raw)]
    for i, row in enumerate(rows if labels else []):
        if row.outputs[0] not in labels:
            what = f"is {row.outputs[0]!r}, which is not one of the file's Labels"
            raise TaskFileError(path, f"Instances[{i}].output", what)
    splits = [value.get("split") for value in raw]
    if any(split is not None for split in splits):
        for i, split in enumerate(splits):
            if not isinstance(split, str) or not split:
                raise TaskFileError(path, f"Instances[{i}].split", "must be a name, as in others")
    else:
        splits = _split(rows)
    out: dict[str, list[Instance]] = {}
    for row, split in zip(rows, splits, strict=True):
        out.setdefault(split, []).append(row)
    return {split: tuple(out[split]) for split in sorted(out)}


def _split(rows: Iterable[Instance]) -> list[str]:
    """Train or test by content, so that equal inputs fall on one side."""
    texts = [row.input for row in rows]
    ranked = sorted({hashlib.sha256(text.encode()).hexdigest() for text in texts})
    # At least one of each as soon as there are two inputs.
    cut = ranked[: min(max(1, round(TEST_SHARE * len(ranked))), len(ranked) - 1)]
    test = set(cut)
    return ["test" if hashlib.sha256(t.encode()).hexdigest() in test else "train" for t in texts]


def _instance(path: Path, where: str, value: Any) -> Instance:
    if not isinstance(value, dict):
        raise TaskFileError(path, where, "must be an object with input and output")
    for key in ("input", "output"):
        if key not in value:
            raise TaskFileError(path, f"{where}.{key}", "is missing")
    if not isinstance(value["input"], str):
        raise TaskFileError(path, f"{where}.input", "must be a text")
    output = value["output"]
    outputs = _texts(path, f"{where}.output", [output] if isinstance(output, str) else output)
    if not outputs:
        raise TaskFileError(path, f"{where}.output", "is empty: give at least one output")
    return Instance(value["input"].strip(), tuple(text.strip() for text in outputs))


def _list(path: Path, key: str, data: Mapping[str, Any], optional: bool = False) -> list[Any]:
    value = data.get(key)
    if value is None and optional:
        return []
    if value is None:
        raise TaskFileError(path, key, "is missing")
    if not isinstance(value, list):
        raise TaskFileError(path, key, "must be a list")
    return value


def _texts(path: Path, key: str, value: Any) -> list[str]:
    if value is None:
        raise TaskFileError(path, key, "is missing")

    if not isinstance(value, list) or not all(isinstance(t, str) for t in value):
        raise TaskFileError(path, key, "must be a list of texts")
    return value


def _read_index(folder: Path) -> dict[str, str]:
    """Task → family, from the index in the folder or beside it."""
    for path in (folder / INDEX_FILE, folder.parent / INDEX_FILE):
        if path.is_file():
            try:
                with path.open(encoding="utf-8", newline="") as file:
                    rows = list(csv.DictReader(file))
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                raise UsageError(f"{path} cannot be read: {error}") from error
            if rows and not {"task", "family"} <= set(rows[0]):
                raise UsageError(f"{path} must have the columns 'task' and 'family'")
            return {row["task"]: row["family"] for row in rows if row["task"] and row["family"]}
    return {}
