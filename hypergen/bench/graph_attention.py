"""The graph transformer with the table of distances, and with a network on every pair of nodes.

Run as a module it does one pass and prints the peak of the process; `measure` runs it so.
"""

from __future__ import annotations

import random
import sys

import torch
from torch import Tensor

from hypergen._utils.threads import one_thread
from hypergen.bench.peak import measure_peak, peak_mib
from hypergen.conditions.graph import Edge, ModuleGraph, Node
from hypergen.conditions.graph.batch import GraphBatch
from hypergen.conditions.graph.transformer import DistanceBias, GraphTransformer

OPS = ("linear", "conv2d", "batch_norm", "relu", "add", "attention", "layer_norm", "gelu")


def random_graph(nodes: int, seed: int = 0) -> ModuleGraph:
    """A chain of operations with short and long skips."""
    rng = random.Random(seed)
    made = tuple(Node("operation", rng.choice(OPS), f"n{i}") for i in range(nodes))
    edges = []
    for target in range(1, nodes):
        sources = {target - 1} | {rng.randrange(max(0, target - 40), target) for _ in range(1)}
        edges += [Edge(source, target, "input") for source in sorted(sources)]
    return ModuleGraph(made, tuple(edges))


class PairwiseBias(DistanceBias):
    """The same function, as GHN-3 computes it: the network runs on every pair of nodes."""

    def forward(self, pairs: Tensor) -> Tensor:
        """Pairs `[B, N, N]` → `[B, heads, N, N]`."""
        known = pairs.long().clamp(max=len(self.ahead) - 1)
        bias = self.of_distances(self.ahead[known], self.behind[known]).permute(0, 3, 1, 2)
        return bias.masked_fill((pairs == len(self.ahead))[:, None], float("-inf"))


def transformer(way: str) -> GraphTransformer:
    """GHN-3-T's encoder, with the bias of a way: `"table"` or `"pairs"`."""
    torch.manual_seed(0)
    made = GraphTransformer(dim=64, layers=3, heads=8)
    if way == "pairs":
        bias = PairwiseBias(8, 64)
        bias.load_state_dict(made.bias.state_dict())
        made.bias = bias
    return made.eval()


def measure(way: str, nodes: int) -> float:
    """Peak of a fresh process that encodes one graph, in MiB.

    Args:
        way: `"table"`, `"pairs"`, or `"build"` (encodes nothing).
        nodes: Size of the graph.

    Raises:
        RunError: The process failed; says how.
    """
    return measure_peak("hypergen.bench.graph_attention", way, str(nodes))


def main(way: str, nodes: str) -> None:
    """Encodes and prints the peak."""
    with one_thread(), torch.no_grad():
        batch = GraphBatch.of(random_graph(int(nodes)))
        made = transformer(way)
        if way != "build":
            made(batch)
    print(peak_mib())


if __name__ == "__main__":
    main(*sys.argv[1:])
