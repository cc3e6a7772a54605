"""The mapping file: what is known of checkpoints that their files do not say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen.zoo.store.records import Task

_SELECTORS = ("path", "glob", "regex")
_TEXTS = ("run", "task", "family", "parent")
_NUMBERS = ("step", "seed")
_TABLES = ("hyperparameters", "metrics", "network")
_FIELDS = (*_TEXTS, *_NUMBERS, *_TABLES, "descriptions")


@dataclass(frozen=True)
class Rule:
    """Words about the checkpoints that one pattern fits.

    Attributes:
        label: Words for messages: the file, and the pattern.
        selector: `path`, `glob` or `regex`.
        pattern: The pattern.
        values: Fields of the row.
    """

    label: str
    selector: str
    pattern: str
    values: dict[str, Any]

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The pattern as a regular expression."""
        if self.selector == "regex":
            return re.compile(self.pattern)
        if self.selector == "path":
            return re.compile(re.escape(self.pattern.rstrip("/")) + r"\Z")
        return re.compile(_glob(self.pattern.rstrip("/")))

    def match(self, path: str) -> dict[str, Any] | None:
        """The fields of a checkpoint, named groups included, or None when the rule is not for it.

        Raises:
            UsageError: A group for a number holds something else.
        """
        found = self.regex.search(path) if self.selector == "regex" else self.regex.match(path)
        if found is None:
            return None
        values = dict(self.values)
        for group, text in found.groupdict().items():
            if text is not None:
                key, *below = group.split("__")
                number = _number(text)
                wanted = int if key in _NUMBERS else (int, float) if key == "metrics" else object
                if not isinstance(number, wanted):
                    raise UsageError(f"{self.label}: the group {key!r} holds {text!r} in {path}")
                value: Any = text if key in _TEXTS else number
                for name in reversed(below):
                    value = {name: value}
                values = _joined(values, {key: value})
        return values


@dataclass(frozen=True)
class MetadataMap:
    """All rules of a mapping file.

    Attributes:
        rules: In the order of the file; later ones win, field by field.
        tasks: Its task table.
        network: Architecture of every checkpoint that no rule gives another one.
    """

    rules: tuple[Rule, ...] = ()
    tasks: dict[str, Task] = field(default_factory=dict)
    network: dict[str, Any] | None = None

    def lookup(self, paths: Iterable[str], used: set[str]) -> dict[str, Any]:
        """Fields for a checkpoint.

        Args:
            paths: Where it lies: an adapter's folder, or a file with and without its folder.
            used: Labels of the rules that fitted, added to.

        Raises:
            UsageError: A named group holds what its field cannot.
        """
        paths = list(paths)
        values: dict[str, Any] = {} if self.network is None else {"network": self.network}
        for rule in self.rules:
            found = next((m for m in map(rule.match, paths) if m is not None), None)
            if found is not None:
                used.add(rule.label)
                replaced = {**values, **({"network": {}} if "network" in found else {})}
                values = _joined(replaced, found)
        return values


def read_mapping(path: str | Path | None) -> MetadataMap:
    """Reads a mapping file.

    YAML or JSON: a list of rules, or an object with `rules`, `tasks` (name → `descriptions`,
    `family`) and `network`; JSONL: one rule a line. A rule has one of `path`, `glob` (`*` stays in
    a folder, `**` does not) and `regex` (searched for; its named groups are fields too, those below
    a table written `hyperparameters__lr`), and any of `run`, `step`, `seed`, `task`,
    `descriptions`, `family`, `hyperparameters`, `metrics`, `parent` and `network`.

    Args:
        path: The file; None for no rules.

    Raises:
        UsageError: It cannot be read, or a rule is malformed; names the file and the rule.
    """
    if path is None:
        return MetadataMap()
    path = Path(path)
    data = _parse(path)
    data = {"rules": data} if isinstance(data, list) else data
    if not isinstance(data, dict):
        raise UsageError(f"{path} must hold a list of rules, or an object with 'rules'")
    for key in data:
        if key not in ("rules", "tasks", "network"):
            hint = did_you_mean(str(key), ("rules", "tasks", "network"))
            raise UsageError(f"{path}: unknown key {key!r}.{hint}")
    rules = data.get("rules") or []
    tasks = data.get("tasks") or {}
    if not isinstance(rules, list) or not isinstance(tasks, dict):
        raise UsageError(f"{path}: 'rules' must be a list and 'tasks' an object")
    network = data.get("network")
    if network is not None:
        _check_value(f"{path}", "network", network)
    return MetadataMap(
        tuple(_rule(path, number, rule) for number, rule in enumerate(rules, start=1)),
        {str(name): _task(f"{path}, task {name!r}", task) for name, task in tasks.items()},
        network,
    )


def _parse(path: Path) -> Any:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        # Dates and other values of YAML that JSON lacks would only fail when they are written.
        json.dumps(data, allow_nan=False)
        return data
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is not a valid mapping file: {error}") from error


def _rule(path: Path, number: int, data: Any) -> Rule:
    label = f"{path}, rule {number}"
    if not isinstance(data, dict):
        raise UsageError(f"{label} must be an object with 'glob', 'path' or 'regex'")
    selectors = [key for key in _SELECTORS if key in data]
    if len(selectors) != 1:
        raise UsageError(f"{label} needs exactly one of 'glob', 'path' and 'regex'")
    selector, pattern = selectors[0], data[selectors[0]]
    if not isinstance(pattern, str) or not pattern:
        raise UsageError(f"{label}: {selector!r} must be a text that is not empty")
    label = f"{label} ({selector} {pattern!r})"
    values = {key: value for key, value in data.items() if key != selector}
    for key, value in values.items():
        if key not in _FIELDS:
            raise UsageError(f"{label}: unknown field {key!r}.{did_you_mean(str(key), _FIELDS)}")
        _check_value(label, key, value)
    rule = Rule(label, selector, pattern, values)
    if selector != "regex":
        if ".." in PurePosixPath(pattern).parts or pattern.startswith("/") or "\\" in pattern:
            raise UsageError(f"{label}: paths are relative to the folder that is imported")
        return rule
    try:
        groups = rule.regex.groupindex
    except re.error as error:
        raise UsageError(f"{label} is no regular expression: {error}") from error
    for group in groups:
        key, *below = group.split("__")
        if key not in (*_TEXTS, *_NUMBERS, "hyperparameters", "metrics"):
            raise UsageError(f"{label}: unknown group {group!r}.{did_you_mean(key, _FIELDS)}")
        if len(below) != {"hyperparameters": 1, "metrics": 2}.get(key, 0):
            raise UsageError(
                f"{label}: write the group {group!r} as NAME, hyperparameters__NAME or "
                "metrics__SPLIT__NAME"
            )
    return rule


def _check_value(label: str, key: str, value: Any) -> None:
    """Checks one field.

    Raises:
        UsageError: It holds something else than it must.
    """

    def whole(number: Any) -> bool:
        return isinstance(number, int) and not isinstance(number, bool) and number >= 0

    def real(number: Any) -> bool:
        return isinstance(number, (int, float)) and not isinstance(number, bool)

    good, expected = True, ""
    if key in _TEXTS:
        good, expected = isinstance(value, str) and bool(value), "a text"
    elif key in _NUMBERS:
        good, expected = whole(value), "a whole number of at least 0"
    elif key == "descriptions":
        good = isinstance(value, list) and all(isinstance(s, str) and s for s in value)
        expected = "a list of sentences"
    elif key == "metrics":
        good = isinstance(value, dict) and all(
            isinstance(split, dict) and all(map(real, split.values())) for split in value.values()
        )
        expected = "split → name → number, such as {test: {accuracy: 0.9}}"
    elif key == "hyperparameters":
        good, expected = isinstance(value, dict), "an object"
    elif key == "network":
        good = isinstance(value, dict) and isinstance(value.get("class"), str)
        expected = "a network, such as {class: MLP, init_args: {…}}"
    if not good:
        raise UsageError(f"{label}: {key!r} must hold {expected}, not {value!r}")


def _task(label: str, data: Any) -> Task:
    data = data or {}
    known = ("descriptions", "family", "metadata")
    if not isinstance(data, dict):
        raise UsageError(f"{label} must be an object")
    for key, value in data.items():
        if key not in known:
            raise UsageError(f"{label}: unknown field {key!r}.{did_you_mean(str(key), known)}")
        _check_value(label, "hyperparameters" if key == "metadata" else key, value)
    return Task(
        tuple(data.get("descriptions", ())), data.get("family", ""), data.get("metadata", {})
    )


def _joined(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new values over the old ones, table by table."""
    out = dict(old)
    for key, value in new.items():
        before = out.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        out[key] = _joined(before, value) if both else value  # type: ignore[arg-type]
    return out


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if abs(number) != float("inf") and number == number else text
    return text


def _glob(pattern: str) -> str:
    """A glob as a regular expression: `*` and `?` stay within one folder, `**` does not."""
    out = ""
    for piece in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        out += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(
            piece, re.escape(piece)
        )
    return out + r"\Z"
