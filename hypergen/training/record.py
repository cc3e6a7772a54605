"""What config.yaml says of modules that were made by hand."""

from __future__ import annotations

import inspect
from typing import Any

from lightning.pytorch import LightningDataModule

from hypergen.training.base import TrainingModule


def describe(thing: TrainingModule | LightningDataModule) -> dict[str, Any]:
    """What is known of a module made by hand, in the layout of a recipe.

    Arguments that are instances (an objective, a suite) are named by class: such a config.yaml is
    a record, not a recipe that the command line can run.
    """
    if isinstance(thing, TrainingModule):
        generator = thing.generator
        return {
            "generator": {
                "class_path": type(generator).__name__,
                "init_args": dict(generator.config),
            },
            **thing.describe(),
        }
    cls = type(thing)
    public = {k: v for k, v in vars(thing).items() if not k.startswith("_")}
    settings = {k: v for k, v in public.items() if is_plain(v)}
    names = arguments(cls)
    return {
        "class_path": f"{cls.__module__}.{cls.__qualname__}",
        "init_args": {k: v for k, v in settings.items() if k in names},
    }


def arguments(cls: type) -> set[str]:
    """Names that a constructor takes, those of its bases too if it passes others on."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}


def is_plain(value: Any) -> bool:
    """Whether a value is made of what YAML writes."""
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def plain(value: Any) -> Any:
    """The value in what YAML writes; anything else becomes the name of its class."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value if is_plain(value) else type(value).__name__
