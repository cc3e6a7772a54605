"""Collections of trained weights and the tasks they were trained on."""

from hypergen.zoo.adapters import train_multitask, train_weights
from hypergen.zoo.tasks import TaskSuite

__all__ = ["TaskSuite", "train_multitask", "train_weights"]
