"""Recipe: how a zoo is made, as data."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen.zoo.build.options import construct, override, plain_arguments, read_yaml
from hypergen.zoo.store import Block, Header

# Recipe -> module that defines it, imported when it is asked for.
_BUILT_IN = {
    "NetworkZoo": "hypergen.zoo.build.networks",
    "AdapterZoo": "hypergen.zoo.language.recipe",
}


class Recipe(ABC):
    """How a zoo is made: a header, and jobs that each make one part.

    The arguments of a recipe's constructor are the keys of its YAML file and the options of
    `hypergen zoo build`; each is kept as an attribute of the same name. They are annotated, since
    values are checked against the annotations. A recipe is a frozen dataclass as a rule.

    What a job makes depends on the recipe and the job's number alone, so that jobs may run
    anywhere and in any order.

    Attributes:
        name: Name of the zoo.
        steps: Optimiser steps of a job, which `on_step` counts.
        device: Where the networks are trained.
    """

    name: str
    steps: int
    device: str

    _classes: ClassVar[dict[str, type[Recipe]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Recipe._classes[cls.__name__] = cls

    @abstractmethod
    def header(self) -> Header:
        """What `zoo.json` says: tasks, architectures, provenance and the number of parts."""

    @abstractmethod
    def jobs(self) -> int:
        """How many jobs there are; job `i` makes part `i`."""

    @abstractmethod
    def run(self, job: int, on_step: Callable[[int], None] | None = None) -> list[Block]:
        """Trains the networks of a job.

        Args:
            job: Its number.
            on_step: Called now and then with the number of steps that are done.

        Returns:
            Their checkpoints.
        """

    def models(self, job: int) -> int:
        """How many networks a job trains; the unit of the progress bar."""
        return 1

    @property
    def advice(self) -> str:
        """What to change when a job needs more memory than there is."""
        return "use fewer --workers"

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form: the class and its arguments."""
        module = type(self).__module__
        name = type(self).__name__
        path = name if _BUILT_IN.get(name) == module else f"{module}.{name}"
        return {"recipe": path, **plain_arguments(self)}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Recipe:
        """Makes a recipe from `to_dict` or from what a YAML file holds.

        Raises:
            UsageError: An unknown recipe or option, or a value that does not fit; names it.
        """
        arguments = {key: value for key, value in data.items() if key != "recipe"}
        recipe: Recipe = construct(_recipe_class(data.get("recipe")), arguments)
        return recipe


def read_recipe(path: str | Path, options: Sequence[str] = ()) -> Recipe:
    """Reads a recipe from a YAML file.

    Args:
        path: The file.
        options: Words of a command line that change values, such as `["--runs", "10"]`.

    Raises:
        UsageError: The file, an option or a value is wrong; names the file and the option.
    """
    data = read_yaml(Path(path))
    override(data, options)
    try:
        return Recipe.from_dict(data)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _recipe_class(path: Any) -> type[Recipe]:
    """Finds a recipe by its name, or by the dotted path of one that is defined elsewhere."""
    if not isinstance(path, str):
        raise UsageError(f"say what is built: recipe: NAME.{did_you_mean('', _BUILT_IN)}")
    module, _, name = path.rpartition(".")
    module = module or _BUILT_IN.get(name, "")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise UsageError(f"recipe: there is no module '{module}'") from None
    cls = Recipe._classes.get(name)
    # Worker processes know the script that started them by another name.
    if cls is None or module not in ("", "__main__", cls.__module__):
        raise UsageError(f"there is no recipe '{path}'.{did_you_mean(name, _BUILT_IN)}")
    return cls
