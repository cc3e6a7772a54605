"""The folder format of a zoo: sealed JSON, sharded safetensors, memory-mapped."""

from hypergen.zoo.store.reader import Zoo
from hypergen.zoo.store.records import Architecture, Header, Row, Task
from hypergen.zoo.store.verify import Damage, verify_zoo
from hypergen.zoo.store.writer import Block, ZooWriter

__all__ = [
    "Architecture",
    "Block",
    "Damage",
    "Header",
    "Row",
    "Task",
    "Zoo",
    "ZooWriter",
    "verify_zoo",
]
