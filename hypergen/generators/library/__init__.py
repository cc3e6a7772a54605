"""Generators made of trained experts: retrieval, mixing and routing."""

from hypergen.generators.library.arrow import ArrowRouting, ModuleInputs, module_inputs
from hypergen.generators.library.base import DescribedExperts, LibraryGenerator
from hypergen.generators.library.experts import ExpertLibrary, Experts
from hypergen.generators.library.nearest import NearestExpert
from hypergen.generators.library.routed import RoutedExperts
from hypergen.generators.library.skills import LatentSkills
from hypergen.generators.library.weighted import WeightedExperts

__all__ = [
    "ArrowRouting",
    "DescribedExperts",
    "ExpertLibrary",
    "Experts",
    "LatentSkills",
    "LibraryGenerator",
    "ModuleInputs",
    "NearestExpert",
    "RoutedExperts",
    "WeightedExperts",
    "module_inputs",
]
