"""Deterministic hypernetworks."""

from hypergen.generators.hyper.heads import FlatHead, RowHeads
from hypergen.generators.hyper.mip import MIPEncoding
from hypergen.generators.hyper.mlp import MLPGenerator
from hypergen.generators.hyper.perceiver import PerceiverGenerator
from hypergen.generators.hyper.prompt_to_effect import PromptToEffect
from hypergen.generators.hyper.text_to_lora import TextToLoRA
from hypergen.generators.hyper.transformer import TransformerGenerator
from hypergen.generators.hyper.zhyper import ZhyperGenerator

__all__ = [
    "FlatHead",
    "MIPEncoding",
    "MLPGenerator",
    "PerceiverGenerator",
    "PromptToEffect",
    "RowHeads",
    "TextToLoRA",
    "TransformerGenerator",
    "ZhyperGenerator",
]
