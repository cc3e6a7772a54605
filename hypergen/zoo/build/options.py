"""Objects from YAML and back: `{class_path: MLP, init_args: {…}}`, checked against signatures."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from hypergen._utils.errors import UsageError, did_you_mean

_CLASS, _ARGUMENTS = "class_path", "init_args"


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-3` is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """Reads YAML: plain values, lists and mappings only.

    Raises:
        UsageError: It is not valid YAML.
    """
    try:
        # A safe loader, with one more way to write a number.
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise UsageError(f"this is not valid YAML: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Raises:
        UsageError: It cannot be read, or holds something else; names the file.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds no options: a recipe is a mapping of names to values")
    return data


def override(data: dict[str, Any], words: Sequence[str]) -> None:
    """Puts `--name value` and `--name=value` of a command line into a recipe, in place.

    `--network.hidden [8]` reaches into the arguments of a nested class.

    Raises:
        UsageError: A word is no option, or an option has no value.
    """
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"'{word}' is no option: write --name value")
        name, equals, text = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"--{name} needs a value")
            text = rest.pop(0)
        *path, last = [key for key in name.split(".") if key != _ARGUMENTS]
        node = data
        for key in path:
            node = _child(_inside(node), key, name)
        (node if last == _CLASS else _inside(node))[last] = parse_yaml(text)


def _child(node: dict[str, Any], key: str, option: str) -> dict[str, Any]:
    """The mapping under a key, which begins here where there is none."""
    child = node.get(key)
    if child is None or isinstance(child, str):  # a class may be named without arguments
        child = node[key] = {} if child is None else {_CLASS: child}
    if not isinstance(child, dict):
        raise UsageError(f"--{option}: {key} has no options of its own, it is {child!r}")
    return child


def _inside(node: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a class, or a plain mapping itself."""
    if _CLASS not in node:
        return node
    node[_ARGUMENTS] = arguments = node.get(_ARGUMENTS) or {}
    return typing.cast("dict[str, Any]", arguments)


def construct(cls: type[Any], arguments: Mapping[str, Any], where: str = "") -> Any:
    """Calls a class with arguments that are checked against its annotations.

    Args:
        cls: The class.
        arguments: Plain values by name.
        where: Place of the arguments, for messages.

    Raises:
        UsageError: An argument is unknown, missing or of the wrong type; names it.
    """
    parameters = inspect.signature(cls).parameters
    hints = _hints(cls)
    values = {}
    for key, value in arguments.items():
        place = f"{where}.{key}" if where else str(key)
        if key not in parameters:
            hint = did_you_mean(str(key), parameters)
            raise UsageError(f"{place}: {cls.__name__} has no option '{key}'.{hint}")
        values[key] = coerce(value, hints.get(key, Any), place)
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in values]
    if missing:
        owner = f" of {where}" if where else ""
        raise UsageError(f"{cls.__name__}{owner} needs the option '{missing[0]}'")
    try:
        return cls(**values)
    except UsageError as error:
        raise UsageError(f"{where}: {error}" if where else str(error)) from error


def _hints(cls: type[Any]) -> dict[str, Any]:
    own: Any = cls.__init__  # a dataclass's own, which names its annotations
    return typing.get_type_hints(own)


def coerce(value: Any, kind: Any, where: str) -> Any:
    """Turns a plain value into what an annotation asks for.

    Args:
        value: Number, string, list or mapping, as YAML gives it.
        kind: The annotation.
        where: Name of the option, for messages.

    Raises:
        UsageError: The value does not fit; names the option.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _coerce_union(value, get_args(kind), where)
    if origin is Literal:
        if value not in get_args(kind):
            hint = did_you_mean(str(value), map(str, get_args(kind)))
            raise UsageError(f"{where} cannot be {value!r}.{hint}")
        return value
    if kind in (bool, int, float, str, type(None)):
        return _scalar(value, kind, where)
    if origin in (tuple, list) or (inspect.isclass(origin) and issubclass(origin, Collection)):
        return _coerce_collection(value, origin, get_args(kind), where)
    if inspect.isclass(kind) and not isinstance(value, kind):
        return _instance(kind, value, where)
    return value


def _coerce_union(value: Any, kinds: Sequence[Any], where: str) -> Any:
    errors = []
    own = [kind for kind in kinds if hasattr(kind, "from_plain")]
    for kind in own or kinds:  # a class that reads plain values knows them best
        try:
            return coerce(value, kind, where)
        except UsageError as error:
            errors.append((kind, error))
    # Where one kind alone could have been meant, its own message says most.
    real = [error for kind, error in errors if kind is not type(None)]
    if len(real) == 1:
        raise real[0]
    names = " or ".join(_name(kind) for kind, _ in errors)
    raise UsageError(f"{where} must be {names}, not {value!r}")


def _coerce_collection(value: Any, origin: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise UsageError(f"{where} must be a mapping, not {value!r}")
        inner = kinds[1] if len(kinds) > 1 else Any
        return {str(key): coerce(item, inner, f"{where}.{key}") for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{where} must be a list, not {value!r}")
    if origin is tuple and kinds and kinds[-1] is not Ellipsis:
        if len(kinds) != len(value):
            raise UsageError(f"{where} must be a list of {len(kinds)} values, not {value!r}")
        each: Sequence[Any] = kinds
    else:
        each = [kinds[0] if kinds else Any] * len(value)
    items = [
        coerce(item, kind, f"{where}[{i}]")
        for i, (item, kind) in enumerate(zip(value, each, strict=True))
    ]
    return items if origin is list else tuple(items)


def _scalar(value: Any, kind: Any, where: str) -> Any:
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # 1e3
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise UsageError(f"{where} must be {_name(kind)}, not {value!r}")


def _name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if kind is type(None):
        return "null"
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if inspect.isclass(origin):
        return "a mapping" if issubclass(origin, Mapping) else "a list"
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _instance(base: type[Any], value: Any, where: str) -> Any:
    """An object of a class or of one of its subclasses, from its name and arguments."""
    if hasattr(base, "from_plain"):
        try:
            return base.from_plain(value)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
    known = {cls.__name__: cls for cls in (base, *_subclasses(base)) if not inspect.isabstract(cls)}
    if isinstance(value, str):
        value = {_CLASS: value}
    if not isinstance(value, Mapping) or not isinstance(value.get(_CLASS), str):
        raise UsageError(
            f"{where} must be written as {{{_CLASS}: NAME, {_ARGUMENTS}: {{…}}}}, not {value!r}."
            f"{did_you_mean('', known)}"
        )
    for key in value:
        if key not in (_CLASS, _ARGUMENTS):
            raise UsageError(f"{where} has no '{key}'.{did_you_mean(key, (_CLASS, _ARGUMENTS))}")
    name = value[_CLASS].rpartition(".")[2]
    if name not in known:
        raise UsageError(f"{where}: there is no '{value[_CLASS]}'.{did_you_mean(name, known)}")
    arguments = value.get(_ARGUMENTS) or {}
    if not isinstance(arguments, Mapping):
        raise UsageError(f"{where}.{_ARGUMENTS} must be a mapping, not {arguments!r}")
    return construct(known[name], arguments, where)


def _subclasses(base: type[Any]) -> list[type[Any]]:
    return [c for direct in base.__subclasses__() for c in (direct, *_subclasses(direct))]


def plain(value: Any) -> Any:
    """The opposite of `coerce`: numbers, strings, lists and mappings.

    An object becomes its class's name and the attributes that are named like its arguments.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "to_plain"):
        return value.to_plain()
    if isinstance(value, Path):
        return str(value)
    return {_CLASS: type(value).__name__, _ARGUMENTS: plain_arguments(value)}


def plain_arguments(value: object) -> dict[str, Any]:
    """The arguments that make an equal object, as plain values."""
    return {name: plain(getattr(value, name)) for name in inspect.signature(type(value)).parameters}
