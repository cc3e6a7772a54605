"""Condition → Weights."""

from hypergen.generators.base import Generator, find_run, load, load_generator
from hypergen.generators.context_prefix import ContextPrefix
from hypergen.generators.diffusion import DiffusionGenerator, KDEGenerator
from hypergen.generators.fast_weights import DocumentState, GenerativeAdapter
from hypergen.generators.gain import GainHead
from hypergen.generators.graph import GraphHypernetwork, init_
from hypergen.generators.hyper import (
    MLPGenerator,
    PerceiverGenerator,
    PromptToEffect,
    TextToLoRA,
    TransformerGenerator,
    ZhyperGenerator,
)
from hypergen.generators.library import (
    ArrowRouting,
    LatentSkills,
    NearestExpert,
    RoutedExperts,
    WeightedExperts,
)
from hypergen.generators.multitask import MultiTask
from hypergen.generators.objectives import (
    Consistency,
    DeltaReconstruction,
    Distillation,
    Mixture,
    Objective,
    Reconstruction,
    TaskLoss,
)
from hypergen.generators.sg_lora import ELBO, SGLoRA
from hypergen.generators.shared import SharedPlusDelta

__all__ = [
    "ELBO",
    "ArrowRouting",
    "Consistency",
    "ContextPrefix",
    "DeltaReconstruction",
    "DiffusionGenerator",
    "Distillation",
    "DocumentState",
    "GainHead",
    "GenerativeAdapter",
    "Generator",
    "GraphHypernetwork",
    "KDEGenerator",
    "LatentSkills",
    "MLPGenerator",
    "Mixture",
    "MultiTask",
    "NearestExpert",
    "Objective",
    "PerceiverGenerator",
    "PromptToEffect",
    "Reconstruction",
    "RoutedExperts",
    "SGLoRA",
    "SharedPlusDelta",
    "TaskLoss",
    "TextToLoRA",
    "TransformerGenerator",
    "WeightedExperts",
    "ZhyperGenerator",
    "find_run",
    "init_",
    "load",
    "load_generator",
]
