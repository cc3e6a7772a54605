"""From a word of the command line to a module: an example, a config, or a class of one's own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen.conditions.graph.examples import EXAMPLES


def resolve_model(
    name: str, kwargs: dict[str, Any] | None = None, device: str = "meta"
) -> nn.Module:
    """Builds the network that a name stands for; by default without memory for its parameters.

    Args:
        name: Name of a built-in example; `package.module:attribute`, a class or function that
            returns a module; a folder with the `config.json` of a transformers model, or its name
            on the hub.
        kwargs: Arguments of the class or function, or changes to the config.
        device: Where to build it; on any other than `meta` it has its own initial values.

    Raises:
        UsageError: There is nothing of that name, or it cannot be built.
    """
    kwargs = kwargs or {}
    if name in EXAMPLES:
        if kwargs:
            raise UsageError(f"the example {name!r} takes no --kwargs")
        with torch.device(device):
            return EXAMPLES[name]()
    if ":" in name and not Path(name).exists():
        return _own(name, kwargs, device)
    return _transformers(name, kwargs, device)


def _own(name: str, kwargs: dict[str, Any], device: str) -> nn.Module:
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` does: the user's own code lies here
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{name}: {module} cannot be imported: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = did_you_mean(part, [n for n in dir(found) if not n.startswith("_")])
            raise UsageError(f"{name}: {module} has no {attribute!r}.{hint}")
        found = getattr(found, part)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise UsageError(f"{name} is a {type(found).__name__}, not a class or function")
        try:
            found = _build(found, kwargs, device)
        except Exception as error:
            raise UsageError(
                f"{name} cannot be built: {type(error).__name__}: {error}; pass its arguments by "
                "--kwargs '{\"width\": 64}'"
            ) from error
    if not isinstance(found, nn.Module):
        raise UsageError(f"{name} makes a {type(found).__name__}, not a torch.nn.Module")
    return found


def _build(build: Any, kwargs: dict[str, Any], device: str) -> Any:
    try:
        with torch.device(device):
            return build(**kwargs)
    except (RuntimeError, NotImplementedError):
        if device != "meta":
            raise
        # It reads numbers while it is built.
        return build(**kwargs)


def _transformers(name: str, kwargs: dict[str, Any], device: str) -> nn.Module:
    import transformers

    folder = Path(name)
    if folder.suffix == ".json" and folder.is_file():
        folder = folder.parent
    local = folder.is_dir()
    if local and not (folder / "config.json").is_file():
        raise UsageError(f"{folder} holds no config.json of a transformers model")
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder) if local else name, **kwargs)
    except (OSError, ValueError) as error:
        hint = did_you_mean(name, EXAMPLES)
        raise UsageError(
            f"no model {name!r}: neither an example, nor a folder with a config.json, nor a model "
            f"that the hub or its cache gives a config for.{hint}"
        ) from error
    cls = _class(config)
    with torch.device(device):
        model: nn.Module = cls(config)
    return model


def _class(config: Any) -> Any:
    """The class that a config names, or the bare model of its kind."""
    import transformers

    for architecture in getattr(config, "architectures", None) or ():
        found = getattr(transformers, architecture, None)
        if found is not None:
            return found
    mapping = transformers.MODEL_MAPPING
    if type(config) not in mapping:
        raise UsageError(f"transformers has no model for {type(config).__name__}")
    found = mapping[type(config)]
    return found[0] if isinstance(found, (tuple, list)) else found
