"""Zoos from checkpoints that people have: PEFT adapters, state dicts, Lightning checkpoints."""

from hypergen.zoo.importing.importer import import_zoo
from hypergen.zoo.importing.padding import rank_mask
from hypergen.zoo.importing.report import Entry, ImportReport

__all__ = ["Entry", "ImportReport", "import_zoo", "rank_mask"]
