"""What is known: raw inputs encoded as tokens, a mask and one pooled vector."""

from hypergen.conditions.base import Condition, ConditionEncoder
from hypergen.conditions.base_weights import BaseWeightsEncoder, WithBaseWeights, base_weights
from hypergen.conditions.context import ContextEncoder
from hypergen.conditions.demos import DemoEncoder
from hypergen.conditions.document import DocumentEncoder
from hypergen.conditions.fuse import FusedEncoder
from hypergen.conditions.hashing import HashingEncoder
from hypergen.conditions.metric import MetricEncoder
from hypergen.conditions.none import NoCondition
from hypergen.conditions.task import TaskEncoder
from hypergen.conditions.text import TextEncoder, default_text_encoder, text_encoder_by_name
from hypergen.conditions.vector import VectorEncoder
from hypergen.conditions.weights import WeightsEncoder

__all__ = [
    "BaseWeightsEncoder",
    "Condition",
    "ConditionEncoder",
    "ContextEncoder",
    "DemoEncoder",
    "DocumentEncoder",
    "FusedEncoder",
    "HashingEncoder",
    "MetricEncoder",
    "NoCondition",
    "TaskEncoder",
    "TextEncoder",
    "VectorEncoder",
    "WeightsEncoder",
    "WithBaseWeights",
    "base_weights",
    "default_text_encoder",
    "text_encoder_by_name",
]
