"""Recipes of zoos, and the engines that carry them out."""

from hypergen.zoo.build.build import build_zoo
from hypergen.zoo.build.networks import NetworkZoo
from hypergen.zoo.build.ranges import Range
from hypergen.zoo.build.recipe import Recipe, read_recipe

__all__ = ["NetworkZoo", "Range", "Recipe", "build_zoo", "read_recipe"]
