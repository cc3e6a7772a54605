"""Architectures with their graphs, drawn and traced as training asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch.utils.data import IterableDataset, get_worker_info

from hypergen._utils.seeding import generator as seeded
from hypergen.conditions.graph import ModuleGraph, trace
from hypergen.zoo.architectures import Architecture, ArchitectureSpace, LearningProblem
from hypergen.zoo.architectures.functional import skeleton
from hypergen.zoo.architectures.space import size_of

Pair = tuple[Architecture, ModuleGraph]


@lru_cache(maxsize=4096)
def graph_of(architecture: Architecture) -> ModuleGraph:
    """The graph of an architecture; one object for equal ones."""
    module, _ = skeleton(architecture)
    return trace(module, architecture.signature.example(), cache=False)


class ArchitectureStream(IterableDataset[list[Pair]]):
    """Meta-batches of architectures and their graphs, drawn and traced as they are asked for.

    Meta-batch i is a function of the space, the settings and i. With several workers of a
    `DataLoader` each makes every so-many-th, and they come in order.

    Args:
        space: What is drawn from.
        problem: What the architectures are for.
        count: Architectures of a meta-batch.
        first: Number of the first meta-batch.
        offset: What is added to the numbers of architectures: another stream of the same space.
        pool: How many architectures there are in all; endlessly many when None.
        share: Of the architectures of a meta-batch those that this process gets.
        max_nodes: Most nodes of all graphs together; architectures at the end are left out.
        max_parameters: Most parameters of all architectures together; likewise.
    """

    def __init__(
        self,
        space: ArchitectureSpace,
        problem: LearningProblem,
        count: int,
        *,
        first: int = 0,
        offset: int = 0,
        pool: int | None = None,
        share: slice = slice(None),
        max_nodes: int | None = None,
        max_parameters: int | None = None,
    ) -> None:
        self.space, self.signature, self.count = space, problem.signature, count
        self.first, self.offset, self.pool, self.share = first, offset, pool, share
        self.max_nodes, self.max_parameters = max_nodes, max_parameters

    def __iter__(self) -> Iterator[list[Pair]]:
        info = get_worker_info()
        number, step = self.first, 1
        if info is not None:
            number, step = self.first + info.id, info.num_workers
        while True:
            yield self.meta_batch(number)
            number += step

    def meta_batch(self, number: int) -> list[Pair]:
        """The architectures of a meta-batch and their graphs; never none."""
        numbers = range(number * self.count, (number + 1) * self.count)
        if self.pool is not None:
            random = seeded("pool", self.offset, number)
            numbers = torch.randperm(self.pool, generator=random)[: self.count].tolist()  # type: ignore[assignment]
        kept: list[Pair] = []
        nodes = parameters = 0
        for place in numbers[self.share]:
            architecture = self.space.draw(self.signature, "train", place + self.offset)
            graph = graph_of(architecture)
            nodes, parameters = nodes + len(graph), parameters + size_of(architecture)
            over = (self.max_nodes is not None and nodes > self.max_nodes) or (
                self.max_parameters is not None and parameters > self.max_parameters
            )
            if kept and over:
                break
            kept.append((architecture, graph))
        return kept
