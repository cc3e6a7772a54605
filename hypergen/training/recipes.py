"""Finds the recipe that a command line names."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import yaml

from hypergen._utils.errors import RunNotFoundError, UsageError
from hypergen._utils.recipes import find_recipe
from hypergen.training.base import TrainingModule
from hypergen.training.module import GeneratorModule
from hypergen.training.run import CONFIG


def resolve_recipe(words: list[str]) -> tuple[list[str], Path]:
    """Finds the recipe file; returns the words with its path in them, and the default run folder.

    `-c NAME` means `configs/NAME.yaml`; `--run DIR` without a recipe reads that run's own.

    Raises:
        UsageError: There is no such recipe, or none is given.
    """
    folder = Path("runs")
    found = False
    for i, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option not in ("-c", "--config"):
            continue
        if not equals:
            if i + 1 == len(words) or words[i + 1].startswith("-"):
                raise UsageError(f"{option} needs a file: the recipe")
            value = words[i + 1]
        path = find_recipe(value)
        if equals:
            words[i] = f"{option}={path}"
        else:
            words[i + 1] = str(path)
        folder, found = Path("runs") / path.stem, True
    run = _value_of(words, "--run")
    helps = any(word in ("-h", "--help") for word in words)
    if not found and run is not None and not helps:
        if not (Path(run) / CONFIG).is_file():
            raise RunNotFoundError(f"{Path(run) / CONFIG} does not exist: give a recipe with -c")
        words = ["--config", str(Path(run) / CONFIG), *words]
    elif not found and not helps:
        raise UsageError("give a recipe: -c configs/NAME.yaml")
    return words, folder


def module_class(words: Sequence[str]) -> type[TrainingModule]:
    """What trains a recipe: `module_class` of its data module, else `GeneratorModule`.

    Anything that is wrong with the recipe is left to the parser to tell.
    """
    name = _value_of(words, "--data.class_path") or _value_of(words, "--data")
    path = _value_of(words, "-c") or _value_of(words, "--config")
    if name is None and path is not None:
        try:
            recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            name = recipe["data"]["class_path"]
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
            return GeneratorModule
    package, _, cls = str(name).rpartition(".")
    try:
        data = getattr(importlib.import_module(package), cls)
    except (ImportError, AttributeError, ValueError):
        return GeneratorModule
    found: type[TrainingModule] = getattr(data, "module_class", GeneratorModule)
    return found


def _value_of(words: Sequence[str], option: str) -> str | None:
    for i, word in enumerate(words):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option and i + 1 < len(words):
            return words[i + 1]
    return None
