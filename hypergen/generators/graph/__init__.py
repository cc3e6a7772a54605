"""Architecture graph → full weights."""

from hypergen.generators.graph.hypernetwork import GraphHypernetwork

__all__ = ["GraphHypernetwork"]
