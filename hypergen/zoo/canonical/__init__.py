"""Canonical forms: the same function in many weights, and one of them for each.

network = MLP(64, (32, 32), 10)
flat = balance_units(flat, network.spec(), network.scaling())  # scales of ReLU units
flat = canonicalize(flat, network.symmetry())                  # order of hidden units
other = augment(flat, network.symmetry(), seed=0)              # or the reverse: any order
loras = canonicalize_lora(loras)                               # factors of LoRA updates
"""

from hypergen.zoo.canonical.augment import augment, random_index, random_permutations
from hypergen.zoo.canonical.lora import canonicalize_lora
from hypergen.zoo.canonical.matching import align, canonicalize, match, pick_reference
from hypergen.zoo.canonical.scaling import ScalingGroup, balance_units
from hypergen.zoo.canonical.symmetry import PermutationGroup, Place, Symmetry, symmetry_of

__all__ = [
    "PermutationGroup",
    "Place",
    "ScalingGroup",
    "Symmetry",
    "align",
    "augment",
    "balance_units",
    "canonicalize",
    "canonicalize_lora",
    "match",
    "pick_reference",
    "random_index",
    "random_permutations",
    "symmetry_of",
]
