"""Small architectures, described by JSON, whose trained weights fill zoos."""

from hypergen.zoo.networks.base import Network
from hypergen.zoo.networks.cnn import CNN
from hypergen.zoo.networks.mlp import MLP
from hypergen.zoo.networks.siren import SIREN
from hypergen.zoo.networks.vit import ViT

__all__ = ["CNN", "MLP", "SIREN", "Network", "ViT"]
