"""Many small networks, trained as one stacked network."""

from hypergen.zoo.ensemble.classification import Classification
from hypergen.zoo.ensemble.data import CIFAR10, MNIST, Digits, ImageSource, LabelledImages
from hypergen.zoo.ensemble.imagefit import ImageFit
from hypergen.zoo.ensemble.member import Member
from hypergen.zoo.ensemble.problem import Problem
from hypergen.zoo.ensemble.schedule import schedule_factors
from hypergen.zoo.ensemble.train import train_ensemble
from hypergen.zoo.ensemble.trajectories import Trajectories

__all__ = [
    "CIFAR10",
    "MNIST",
    "Classification",
    "Digits",
    "ImageFit",
    "ImageSource",
    "LabelledImages",
    "Member",
    "Problem",
    "Trajectories",
    "schedule_factors",
    "train_ensemble",
]
