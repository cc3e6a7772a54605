"""What is emitted: ordered, typed slots, and the numbers that fill them."""

from hypergen.specs.adapter import AdapterSpec
from hypergen.specs.base import WeightSpec
from hypergen.specs.full import DeltaSpec, FullSpec
from hypergen.specs.lora import LoRASpec, concatenate_ranks, gram
from hypergen.specs.models import cache_argument, match_modules, model_fingerprint
from hypergen.specs.peft import PeftSpec
from hypergen.specs.prefix import PrefixSpec
from hypergen.specs.slot import Group, Slot
from hypergen.specs.tokens import TokenLayout
from hypergen.specs.weights import Weights

__all__ = [
    "AdapterSpec",
    "DeltaSpec",
    "FullSpec",
    "Group",
    "LoRASpec",
    "PeftSpec",
    "PrefixSpec",
    "Slot",
    "TokenLayout",
    "WeightSpec",
    "Weights",
    "cache_argument",
    "concatenate_ranks",
    "gram",
    "match_modules",
    "model_fingerprint",
]
