"""The weights that generated ones are compared with, all made without training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hypergen._utils.seeding import generator as seeded
from hypergen.conditions.graph import ModuleGraph, trace
from hypergen.zoo.architectures import Architecture
from hypergen.zoo.architectures.functional import skeleton

Named = dict[str, Tensor]
_TOGETHER = 8  # architectures that are generated for at a time


@dataclass(frozen=True)
class Generated:
    """An architecture with the weights that were generated for it.

    Attributes:
        architecture: The network.
        graph: Its graph.
        parameters: Name → generated parameter, on the CPU.
    """

    architecture: Architecture
    graph: ModuleGraph
    parameters: Named

    def keys(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Role and shape of each parameter: what may stand for what."""
        nodes, at = self.graph.nodes, self.graph.parameters
        return {n: (nodes[at[n]].op, tuple(p.shape)) for n, p in self.parameters.items()}


@torch.no_grad()
def generate_all(hypernetwork: nn.Module, architectures: Sequence[Architecture]) -> list[Generated]:
    """Generates weights for architectures, some at a time."""
    found = []
    for first in range(0, len(architectures), _TOGETHER):
        part = architectures[first : first + _TOGETHER]
        graphs = [trace(skeleton(a)[0], a.signature.example()) for a in part]
        for architecture, graph, weights in zip(part, graphs, hypernetwork(graphs), strict=True):
            parameters = {n: p.detach().float().cpu() for n, p in weights.row().items()}
            found.append(Generated(architecture, graph, parameters))
    return found


def swapped(one: Generated, seed: int) -> Named:
    """A network's own weights, with those of one role and shape permuted: places in the graph lost.

    Weights that are the only ones of their role and shape stay.
    """
    alike: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, key in one.keys().items():
        alike[key].append(name)
    found = {}
    random = seeded("swap", seed, str(one.architecture.digest))
    for names in alike.values():
        # By at least one place, so that none stays where others could stand.
        shift = int(torch.randint(1, len(names), (), generator=random)) if len(names) > 1 else 0
        for i, name in enumerate(names):
            found[name] = one.parameters[names[(i + shift) % len(names)]]
    return found


def borrowed(everyone: Sequence[Generated], number: int, start: Named) -> tuple[Named, float]:
    """Weights that were generated for other networks, of the same role and shape.

    Args:
        everyone: All networks of a split.
        number: Which of them to find weights for.
        start: What parameters without a counterpart get.

    Returns:
        The parameters, and the share of numbers that have a counterpart.
    """
    one = everyone[number]
    wanted: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, key in one.keys().items():
        wanted[key].append(name)
    found = dict(start)
    matched = 0
    for step in range(1, len(everyone)):  # the next network first, so that they differ in donors
        if not wanted:
            break
        other = everyone[(number + step) % len(everyone)]
        offered: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
        for name, key in other.keys().items():
            offered[key].append(name)
        for key in [k for k in wanted if k in offered]:
            donors = offered[key]
            for i, name in enumerate(wanted.pop(key)):
                found[name] = other.parameters[donors[i % len(donors)]]
                matched += found[name].numel()
    return found, matched / sum(p.numel() for p in start.values())


def averaged(everyone: Sequence[Generated], number: int, start: Named) -> Named:
    """The mean of what was generated for parameters of one role and shape in all other networks."""
    sums: dict[tuple[str, tuple[int, ...]], Tensor] = {}
    counts: dict[tuple[str, tuple[int, ...]], int] = defaultdict(int)
    keys = everyone[number].keys()
    needed = set(keys.values())
    for i, other in enumerate(everyone):
        if i == number:
            continue
        for name, key in other.keys().items():
            if key in needed:
                value = other.parameters[name]
                sums[key] = sums[key] + value if key in sums else value
                counts[key] += 1
    return {n: sums[k] / counts[k] if k in sums else start[n] for n, k in keys.items()}
