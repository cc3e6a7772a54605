"""Looking at zoos: counts, metrics, norms, distances, a map, and how diverse it all is."""

from hypergen.zoo.looking.info import describe
from hypergen.zoo.looking.records import ArchitectureInfo, ZooInfo
from hypergen.zoo.looking.report import write_report

__all__ = ["ArchitectureInfo", "ZooInfo", "describe", "write_report"]
