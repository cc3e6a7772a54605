"""Deterministic hypernetworks."""

from hypergen.generators.hyper.heads import FlatHead, RowHeads
from hypergen.generators.hyper.mip import MIPEncoding
from hypergen.generators.hyper.mlp import MLPGenerator
from hypergen.generators.hyper.perceiver import PerceiverGenerator
from hypergen.generators.hyper.text_to_lora import TextToLoRA
from hypergen.generators.hyper.transformer import TransformerGenerator

__all__ = [
    "FlatHead",
    "MIPEncoding",
    "MLPGenerator",
    "PerceiverGenerator",
    "RowHeads",
    "TextToLoRA",
    "TransformerGenerator",
]
