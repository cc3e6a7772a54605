"""Tasks in files: one JSON object a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypergen._utils.errors import RunError, UsageError
from hypergen._utils.io import read_json


@dataclass(frozen=True)
class TaskFile:
    """One task as a file holds it.

    Attributes:
        path: The file.
        name: The task's name, that of the file when it gives none.
        descriptions: At least one sentence.
        data: The whole object, with the keys that the suite itself reads.
    """

    path: Path
    name: str
    descriptions: tuple[str, ...]
    data: dict[str, Any]

    def field(self, key: str, expected: str, valid: Callable[[Any], bool]) -> Any:
        """Reads a key that the suite needs.

        Args:
            key: The key.
            expected: What it must hold, in words for the error.
            valid: Whether a value is that.

        Raises:
            UsageError: The key is missing or holds something else.
        """
        if key not in self.data:
            raise UsageError(f"{self.path}: key {key!r} is missing; it must hold {expected}")
        if not valid(self.data[key]):
            raise UsageError(f"{self.path}: key {key!r} must hold {expected}")
        return self.data[key]


def read_task_files(folder: str | Path) -> list[TaskFile]:
    """Reads every `*.json` of a folder, in the order of their names.

    A file is `{"name": …, "descriptions": [sentence, …], …}`; other keys belong to the suite.

    Raises:
        UsageError: The folder is missing or has no such file, a file is malformed, or two tasks
            have one name; names the file and the key.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of task files")
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UsageError(f"{folder} holds no task: put one JSON file a task there")
    tasks: dict[str, TaskFile] = {}
    for path in paths:
        task = _read(path)
        if task.name in tasks:
            raise UsageError(
                f"{path}: key 'name' is {task.name!r}, as in {tasks[task.name].path.name}"
            )
        tasks[task.name] = task
    return list(tasks.values())


def _read(path: Path) -> TaskFile:
    try:
        data = read_json(path)
    except RunError as error:
        raise UsageError(str(error)) from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds a {type(data).__name__}, not one JSON object")
    name = data.get("name", path.stem)
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"{path}: key 'name' must hold a text that is not empty")
    if "descriptions" not in data:
        raise UsageError(f"{path}: key 'descriptions' is missing; it must hold a list of sentences")
    sentences = data["descriptions"]
    good = isinstance(sentences, list) and all(isinstance(s, str) and s.strip() for s in sentences)
    if not good or not sentences:
        raise UsageError(
            f"{path}: key 'descriptions' must hold a list of sentences, at least one, none empty"
        )
    return TaskFile(path, name, tuple(sentences), data)
