"""Condition → Weights."""

from hypergen.generators.base import Generator, load
from hypergen.generators.gain import GainHead
from hypergen.generators.hyper import (
    MLPGenerator,
    PerceiverGenerator,
    TextToLoRA,
    TransformerGenerator,
)
from hypergen.generators.objectives import (
    DeltaReconstruction,
    Distillation,
    Mixture,
    Objective,
    Reconstruction,
    TaskLoss,
)

__all__ = [
    "DeltaReconstruction",
    "Distillation",
    "GainHead",
    "Generator",
    "MLPGenerator",
    "Mixture",
    "Objective",
    "PerceiverGenerator",
    "Reconstruction",
    "TaskLoss",
    "TextToLoRA",
    "TransformerGenerator",
    "load",
]
