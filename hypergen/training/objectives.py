"""Objectives by name, mixed with weights."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen.generators import (
    Consistency,
    DeltaReconstruction,
    Distillation,
    Mixture,
    Objective,
    Reconstruction,
    TaskLoss,
)
from hypergen.generators.diffusion import Denoising
from hypergen.generators.sg_lora import ELBO

OBJECTIVES: dict[str, type[Objective]] = {
    "task": TaskLoss,
    "reconstruction": Reconstruction,
    "delta_reconstruction": DeltaReconstruction,
    "distillation": Distillation,
    "consistency": Consistency,
    "elbo": ELBO,
    "denoising": Denoising,
}


def make_objective(recipe: str | Mapping[str, float], data: Any) -> Objective:
    """Builds an objective from its name, or a weighted sum from names and weights.

    Args:
        recipe: `"task"`, `"reconstruction"`, `"delta_reconstruction"`, `"distillation"`, `"elbo"`,
            `"denoising"`, `"consistency"` or the dotted path of an `Objective`; or several of them
            with their weights.
        data: A data module, which provides what an objective's constructor asks for by name:
            `target`, `loss` (of the suite), `spec`, `suite`, `encoder`, and the zoo's `mean` and
            `std` (`[numel]`).

    Raises:
        UsageError: An unknown name, or an argument that the data module does not provide.
    """
    if isinstance(recipe, str):
        return _make(recipe, data)
    if not recipe:
        raise UsageError(f"the objective is empty.{did_you_mean('', OBJECTIVES)}")
    return Mixture([_make(name, data) for name in recipe], [float(w) for w in recipe.values()])


def _make(name: str, data: Any) -> Objective:
    cls = _find(name)
    provided: dict[str, Callable[[], Any]] = {
        "target": lambda: data.target,
        "loss": lambda: data.suite.loss,
        "suite": lambda: data.suite,
        "spec": lambda: data.spec,
        "encoder": lambda: data.encoder,
        "mean": lambda: data.mean,
        "std": lambda: data.std,
    }
    arguments = {}
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.name in provided:
            part = "suite" if parameter.name == "loss" else parameter.name
            if not hasattr(type(data), part) and part not in vars(data):
                raise UsageError(
                    f"objective {name!r} needs a {part}, which {type(data).__name__} does not have"
                )
            arguments[parameter.name] = provided[parameter.name]()
        elif parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            raise UsageError(
                f"objective {name!r} needs {parameter.name!r}, which no data module provides: "
                "build it by hand and pass the instance"
            )
    return cls(**arguments)


def _find(name: str) -> type[Objective]:
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        raise UsageError(f"there is no objective {name!r}.{did_you_mean(name, OBJECTIVES)}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"objective {name!r} cannot be imported: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, Objective)):
        raise UsageError(f"{name!r} is not an Objective")
    return found
