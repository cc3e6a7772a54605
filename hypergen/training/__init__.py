"""Training by Lightning, and only here."""

from hypergen.training.data import TaskDataModule
from hypergen.training.ema import GeneratorEMA
from hypergen.training.module import GeneratorModule
from hypergen.training.objectives import OBJECTIVES, make_objective
from hypergen.training.run import fit
from hypergen.training.zoo import ZooDataModule
from hypergen.training.zoo_pairs import ZooPairsDataModule
from hypergen.training.zoo_vectors import ZooVectorsDataModule
from hypergen.zoo.architectures.train import NetworkTraining, prepare_start, train_from

__all__ = [
    "OBJECTIVES",
    "GeneratorEMA",
    "GeneratorModule",
    "NetworkTraining",
    "TaskDataModule",
    "ZooDataModule",
    "ZooPairsDataModule",
    "ZooVectorsDataModule",
    "fit",
    "make_objective",
    "prepare_start",
    "train_from",
]
