"""Architecture graph → full weights."""

from hypergen.generators.graph.hypernetwork import GraphHypernetwork, parameters_of
from hypergen.generators.graph.initialise import init_

__all__ = ["GraphHypernetwork", "init_", "parameters_of"]
