"""The parser's errors, of many lines, as one line that names the nearest option."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable
from typing import Any

from hypergen._utils.errors import did_you_mean
from hypergen.generators import Generator
from hypergen.training.record import arguments

_NOISE = re.compile(
    r"[\s-]*(Subtypes:|Given value|Does not validate|Errors:|Expected a path but"
    r"|Expected a <class 'NoneType'>)"
)


def explain(message: str, parser: Any, verb: str) -> str:
    """Returns one line that says what is wrong and what was probably meant.

    Args:
        message: The parser's message.
        parser: The parser, whose options are the choices.
        verb: Command that was run.
    """
    if found := re.search(r"[Uu]nrecognized arguments: (\S+)", message):
        option = found[1].partition("=")[0]
        if not option.startswith("-"):
            return f"hypergen {verb} does not take '{option}' (see its --help)"
        return f"hypergen {verb} has no option '{option}'.{nearest(option, _options(parser))}"
    place = re.search(r'Parser key "([^"]+)"', message)
    where = place[1] if place else ""
    if found := re.search(r"Group '([^']+)' does not accept option '([^']+)'", message):
        key = f"{found[1]}.{found[2]}"
        return f"hypergen {verb} has no option '--{key}'.{nearest(f'--{key}', _options(parser))}"
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        # The innermost class around it.
        owners = re.findall(r"Problem with given class_path '([^']+)'", message[: found.start()])
        if not owners:
            keys = {option.lstrip("-").partition(".")[0] for option in _options(parser)}
            return f"the recipe has no key '{found[1]}'.{did_you_mean(found[1], keys)}"
        name = owners[-1].rpartition(".")[2]
        return f"{where}: {name} has no argument '{found[1]}'." + did_you_mean(
            found[1], _arguments(owners[-1], where)
        )
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        hint = did_you_mean(found[1], _classes(where)) or " Give its dotted path."
        return f"{where}: there is no class '{found[1]}'.{hint}"
    if found := re.search(r"module '([^']+)' has no attribute '([^']+)'", message):
        values = vars(importlib.import_module(found[1])).items()
        names = [name for name, value in values if inspect.isclass(value)]
        return f"{where}: {found[1]} has no class '{found[2]}'.{did_you_mean(found[2], names)}"
    if found := re.search(r"No module named '([^']+)'", message):
        return f"{where}: no module named '{found[1]}'"
    if found := re.search(r"the following arguments are required: (.+)", message):
        return f"the recipe lacks {found[1]}"
    inner = re.findall(r'Parser key "([^"]+)"', message)
    lines = [line.strip(" -") for line in message.splitlines() if not _NOISE.match(line)]
    lines = [line for line in lines if line and not line.startswith("Parser key")]
    lines = [line for line in lines if not line.startswith("Problem with given class_path")]
    text = " ".join(lines) or " ".join(message.split())
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text).replace("typing.", "")
    where = ".".join(dict.fromkeys(inner)) or where
    return f"{where}: {text}" if where else text


def nearest(option: str, options: Iterable[str]) -> str:
    """A hint such as " Did you mean '--model.lr'?", by the whole option or by its last part."""
    options = sorted(set(options))
    last = option.lstrip("-").rpartition(".")[2]
    ends = {o: o.lstrip("-").rpartition(".")[2] for o in options}
    same = [o for o, end in ends.items() if end == last]
    if same:
        return f" Did you mean '{same[0]}'?"
    near = difflib.get_close_matches(option, options, n=1, cutoff=0.6)
    if not near:
        close = difflib.get_close_matches(last, sorted(set(ends.values())), n=1, cutoff=0.6)
        near = [o for o in options if close and ends[o] == close[0]][:1]
    return f" Did you mean '{near[0]}'?" if near else " See --help."


def _options(parser: Any) -> list[str]:
    return [o for o in parser._option_string_actions if o.startswith("--") and ".help" not in o]


def _arguments(path: str, where: str) -> list[str]:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    # What the data module gives to the generator is no argument of a recipe.
    linked = ("spec", "encoder") if where.endswith("generator") else ()
    return sorted(name for name in arguments(found) if name not in linked)


def _classes(where: str) -> list[str]:
    return sorted(Generator._registry) if where.endswith("generator") else []
