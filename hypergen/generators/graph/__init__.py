"""Architecture graph → full weights."""

from hypergen.generators.graph.hypernetwork import GraphHypernetwork, parameters_of

__all__ = ["GraphHypernetwork", "parameters_of"]
