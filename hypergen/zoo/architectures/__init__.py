"""Architectures to learn from: drawn by number, none of them stored."""

from hypergen.zoo.architectures.base import Architecture, Signature, count_parameters
from hypergen.zoo.architectures.cells import CellNet
from hypergen.zoo.architectures.convnets import MLP, ConvNeXt, ResNet
from hypergen.zoo.architectures.problems import ImageProblem, LearningProblem, TextProblem
from hypergen.zoo.architectures.space import SPLITS, ArchitectureSpace
from hypergen.zoo.architectures.transformers import GPT, Llama, ViT

__all__ = [
    "GPT",
    "MLP",
    "SPLITS",
    "Architecture",
    "ArchitectureSpace",
    "CellNet",
    "ConvNeXt",
    "ImageProblem",
    "LearningProblem",
    "Llama",
    "ResNet",
    "Signature",
    "TextProblem",
    "ViT",
    "count_parameters",
]
