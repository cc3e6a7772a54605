"""hypergen: a condition goes in, working weights come out.

The public names below load the module that defines them on first use (PEP 562), so that
`import hypergen` and `hypergen --help` stay free of torch and everything heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypergen.conditions import Condition as Condition
    from hypergen.conditions import HashingEncoder as HashingEncoder
    from hypergen.conditions import TaskEncoder as TaskEncoder
    from hypergen.conditions import TextEncoder as TextEncoder
    from hypergen.generators import Generator as Generator
    from hypergen.generators import GraphHypernetwork as GraphHypernetwork
    from hypergen.generators import MLPGenerator as MLPGenerator
    from hypergen.generators import RoutedExperts as RoutedExperts
    from hypergen.generators import SGLoRA as SGLoRA
    from hypergen.generators import SharedPlusDelta as SharedPlusDelta
    from hypergen.generators import TextToLoRA as TextToLoRA
    from hypergen.generators import TransformerGenerator as TransformerGenerator
    from hypergen.generators import ZhyperGenerator as ZhyperGenerator
    from hypergen.generators import init_ as init_
    from hypergen.generators import load as load
    from hypergen.serving.combine import combine as combine
    from hypergen.specs import AdapterSpec as AdapterSpec
    from hypergen.specs import DeltaSpec as DeltaSpec
    from hypergen.specs import FullSpec as FullSpec
    from hypergen.specs import LoRASpec as LoRASpec
    from hypergen.specs import PeftSpec as PeftSpec
    from hypergen.specs import PrefixSpec as PrefixSpec
    from hypergen.specs import Slot as Slot
    from hypergen.specs import Weights as Weights
    from hypergen.specs import WeightSpec as WeightSpec
    from hypergen.targets import FunctionalTarget as FunctionalTarget
    from hypergen.targets import LoRATarget as LoRATarget
    from hypergen.targets import PeftTarget as PeftTarget
    from hypergen.targets import Target as Target
    from hypergen.zoo.demos import BatchDemos as BatchDemos
    from hypergen.zoo.language.demos import TextDemos as TextDemos
    from hypergen.zoo.tuning import refine as refine
    from hypergen.zoo.tuning import search as search

__version__ = "0.1.0"

# Public name -> module that defines it. The TYPE_CHECKING block above says the same to type
# checkers and editors; tests/test_lazy_imports.py compares the two.
_PUBLIC = {
    "Slot": "hypergen.specs",
    "WeightSpec": "hypergen.specs",
    "Weights": "hypergen.specs",
    "LoRASpec": "hypergen.specs",
    "FullSpec": "hypergen.specs",
    "DeltaSpec": "hypergen.specs",
    "PrefixSpec": "hypergen.specs",
    "AdapterSpec": "hypergen.specs",
    "PeftSpec": "hypergen.specs",
    "Condition": "hypergen.conditions",
    "TextEncoder": "hypergen.conditions",
    "HashingEncoder": "hypergen.conditions",
    "TaskEncoder": "hypergen.conditions",
    "Generator": "hypergen.generators",
    "GraphHypernetwork": "hypergen.generators",
    "MLPGenerator": "hypergen.generators",
    "TransformerGenerator": "hypergen.generators",
    "TextToLoRA": "hypergen.generators",
    "ZhyperGenerator": "hypergen.generators",
    "SharedPlusDelta": "hypergen.generators",
    "RoutedExperts": "hypergen.generators",
    "SGLoRA": "hypergen.generators",
    "load": "hypergen.generators",
    "init_": "hypergen.generators",
    "Target": "hypergen.targets",
    "LoRATarget": "hypergen.targets",
    "FunctionalTarget": "hypergen.targets",
    "PeftTarget": "hypergen.targets",
    "BatchDemos": "hypergen.zoo.demos",
    "TextDemos": "hypergen.zoo.language.demos",
    "combine": "hypergen.serving.combine",
    "refine": "hypergen.zoo.tuning",
    "search": "hypergen.zoo.tuning",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hypergen' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
