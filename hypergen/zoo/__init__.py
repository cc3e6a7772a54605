"""Collections of trained weights and the tasks they were trained on.

The names below load the module that defines them on first use, so that the parts of a zoo that need
little import little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypergen.zoo.adapters import train_multitask as train_multitask
    from hypergen.zoo.adapters import train_weights as train_weights
    from hypergen.zoo.build.build import build_zoo as build_zoo
    from hypergen.zoo.store import Zoo as Zoo
    from hypergen.zoo.tasks import TaskSuite as TaskSuite

_PUBLIC = {
    "TaskSuite": "hypergen.zoo.tasks",
    "Zoo": "hypergen.zoo.store",
    "build_zoo": "hypergen.zoo.build.build",
    "train_multitask": "hypergen.zoo.adapters",
    "train_weights": "hypergen.zoo.adapters",
}

__all__ = ["TaskSuite", "Zoo", "build_zoo", "train_multitask", "train_weights"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hypergen.zoo' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value
