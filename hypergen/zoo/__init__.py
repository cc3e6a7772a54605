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
    from hypergen.zoo.demos import BatchDemos as BatchDemos
    from hypergen.zoo.demos import Demos as Demos
    from hypergen.zoo.demos import demos_of as demos_of
    from hypergen.zoo.importing import import_zoo as import_zoo
    from hypergen.zoo.language.demos import TextDemos as TextDemos
    from hypergen.zoo.looking import describe as describe
    from hypergen.zoo.reading import Normalizer as Normalizer
    from hypergen.zoo.reading import ZooDataset as ZooDataset
    from hypergen.zoo.reading import split as split
    from hypergen.zoo.store import Zoo as Zoo
    from hypergen.zoo.store import ZooWriter as ZooWriter
    from hypergen.zoo.store import verify_zoo as verify_zoo
    from hypergen.zoo.tasks import TaskSuite as TaskSuite
    from hypergen.zoo.tuning import refine as refine
    from hypergen.zoo.tuning import search as search

_PUBLIC = {
    "BatchDemos": "hypergen.zoo.demos",
    "Demos": "hypergen.zoo.demos",
    "Normalizer": "hypergen.zoo.reading",
    "TaskSuite": "hypergen.zoo.tasks",
    "TextDemos": "hypergen.zoo.language.demos",
    "Zoo": "hypergen.zoo.store",
    "ZooDataset": "hypergen.zoo.reading",
    "ZooWriter": "hypergen.zoo.store",
    "build_zoo": "hypergen.zoo.build.build",
    "demos_of": "hypergen.zoo.demos",
    "describe": "hypergen.zoo.looking",
    "import_zoo": "hypergen.zoo.importing",
    "refine": "hypergen.zoo.tuning",
    "search": "hypergen.zoo.tuning",
    "split": "hypergen.zoo.reading",
    "train_multitask": "hypergen.zoo.adapters",
    "train_weights": "hypergen.zoo.adapters",
    "verify_zoo": "hypergen.zoo.store",
}

__all__ = [
    "BatchDemos",
    "Demos",
    "Normalizer",
    "TaskSuite",
    "TextDemos",
    "Zoo",
    "ZooDataset",
    "ZooWriter",
    "build_zoo",
    "demos_of",
    "describe",
    "import_zoo",
    "refine",
    "search",
    "split",
    "train_multitask",
    "train_weights",
    "verify_zoo",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hypergen.zoo' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value
