"""Graph encoders by name, and graphs as a condition."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from hypergen._utils.errors import ConditionError, did_you_mean
from hypergen.conditions.base import Condition, ConditionEncoder
from hypergen.conditions.graph.batch import GraphBatch
from hypergen.conditions.graph.gated import GatedGraphNetwork
from hypergen.conditions.graph.graph import ModuleGraph
from hypergen.conditions.graph.transformer import GraphTransformer

ENCODERS: dict[str, type[GatedGraphNetwork | GraphTransformer]] = {
    "gated": GatedGraphNetwork,
    "transformer": GraphTransformer,
}


def make_encoder(options: Mapping[str, Any]) -> GatedGraphNetwork | GraphTransformer:
    """Builds a graph encoder.

    Args:
        options: `name` (`gated` or `transformer`) and arguments of its class.

    Raises:
        ConditionError: An unknown name or argument.
    """
    rest = dict(options)
    name = rest.pop("name", "transformer")
    if name not in ENCODERS:
        raise ConditionError(f"no graph encoder {name!r}.{did_you_mean(str(name), ENCODERS)}")
    cls = ENCODERS[name]
    check_arguments(cls, rest, f"the graph encoder {name!r}")
    return cls(**rest)


def check_arguments(cls: type[nn.Module], given: Mapping[str, Any], what: str) -> None:
    """Checks names of arguments.

    Raises:
        ConditionError: The class takes none of that name.
    """
    known = list(inspect.signature(cls).parameters)
    for key in given:
        if key not in known:
            raise ConditionError(f"{what} has no option {key!r}.{did_you_mean(key, known)}")


class GraphEncoder(ConditionEncoder):
    """Architectures as a condition: one token for each node, pooled by their mean.

    Together with texts: `FusedEncoder({"graph": GraphEncoder(), "text": …}, dim)`.

    Args:
        encoder: `name` (`gated` or `transformer`) and arguments of its class.
        compress: Whether to read each repeated block once.
    """

    input_name: ClassVar[str] = "graph"

    def __init__(self, encoder: Mapping[str, Any] | None = None, *, compress: bool = False) -> None:
        super().__init__()
        self._options = dict(encoder or {"name": "transformer"})
        self.compress = compress
        self.network = make_encoder(self._options)

    @property
    def dim(self) -> int:
        """Width D of the tokens."""
        return self.network.dim

    def config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"encoder": self._options, "compress": self.compress}

    def batch(self, graphs: ModuleGraph | Sequence[ModuleGraph] | GraphBatch) -> GraphBatch:
        """Graphs as a batch on this encoder's device.

        Raises:
            ConditionError: No graph, something that is none, or a batch with another cap.
        """
        device = next(self.parameters()).device
        if not isinstance(graphs, GraphBatch):
            return GraphBatch.of(graphs, self.network.cap, self.compress).to(device)
        if (graphs.cap, graphs.compress) != (self.network.cap, self.compress):
            raise ConditionError(
                f"the batch has cap={graphs.cap}, compress={graphs.compress}; this encoder reads "
                f"GraphBatch.of(graphs, cap={self.network.cap}, compress={self.compress})"
            )
        return graphs.to(device)

    def forward(self, inputs: ModuleGraph | Sequence[ModuleGraph] | GraphBatch) -> Condition:
        """Encodes B graphs."""
        batch = self.batch(inputs)
        return Condition.from_tokens(self.network(batch), batch.mask)
