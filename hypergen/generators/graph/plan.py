"""Which parameters of a batch of graphs are generated together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hypergen.conditions.graph.batch import GraphBatch
from hypergen.generators.graph.rules import Architecture, Form, Rule, Sizes


@dataclass(frozen=True)
class Group:
    """P parameters of one form and size, of any of the architectures.

    Attributes:
        form: What they are (see `Rule`).
        rows, columns, kernel: Their sizes.
        first: Position of the first among all parameters of the plan.
        rules: What to generate, ordered by architecture and place in its spec.
    """

    form: Form
    rows: int
    columns: int
    kernel: tuple[int, ...]
    first: int
    rules: tuple[Rule, ...]

    def __len__(self) -> int:
        return len(self.rules)

    def __getitem__(self, rows: slice) -> Group:
        """Some of its parameters, consecutive ones."""
        start = rows.start or 0
        kept = self.rules[start : rows.stop]
        return Group(self.form, self.rows, self.columns, self.kernel, self.first + start, kept)

    @property
    def span(self) -> slice:
        """Where its parameters stand among all of the plan."""
        return slice(self.first, self.first + len(self))

    @property
    def positions(self) -> int:
        """Number K of positions of the kernel."""
        return math.prod(self.kernel)

    @cached_property
    def std(self) -> Tensor:
        """`[P]`, standard deviation of each at the start."""
        return torch.tensor([rule.slot.std for rule in self.rules])

    @cached_property
    def mean(self) -> Tensor:
        """`[P]`, mean of each at the start."""
        return torch.tensor([rule.slot.mean for rule in self.rules])


@dataclass(frozen=True)
class Piece:
    """Consecutive slots of one architecture: a part of one group.

    Attributes:
        group: Number of the group.
        rows: Which of its parameters, from and to.
        offset: Where the numbers stand in the architecture's flat buffer.
    """

    group: int
    rows: tuple[int, int]
    offset: int


@dataclass(frozen=True)
class Plan:
    """How the parameters of B architectures are generated.

    Attributes:
        architectures: The rules of each.
        groups: Parameters that are generated together; matrices first.
        pieces: For each architecture where its flat buffer comes from, in order.
        graph, node: `[P]`, for every parameter, group by group, whose node it is: number of the
            graph and position among those that the encoder reads.
        copy: `[P]`, in which repetition of a block it is.
    """

    architectures: tuple[Architecture, ...]
    groups: tuple[Group, ...]
    pieces: tuple[tuple[Piece, ...], ...]
    graph: Tensor
    node: Tensor
    copy: Tensor

    @property
    def matrices(self) -> tuple[Group, ...]:
        """Groups of matrices."""
        return tuple(g for g in self.groups if g.form == "matrix")

    @property
    def vectors(self) -> tuple[Group, ...]:
        """Groups of vectors."""
        return tuple(g for g in self.groups if g.form != "matrix")

    @property
    def matrix_count(self) -> int:
        """Number of matrices; they come before the vectors."""
        return sum(len(g) for g in self.matrices)


def make_plan(batch: GraphBatch, architectures: Sequence[Architecture]) -> Plan:
    """Groups the parameters of a batch.

    Args:
        batch: The graphs.
        architectures: The rules of each.
    """
    members: dict[Sizes, list[tuple[int, Rule]]] = {}
    runs: list[list[tuple[Sizes, int, int, int]]] = []
    for number, own in enumerate(architectures):
        offset = 0
        run: list[tuple[Sizes, int, int, int]] = []
        for rule in own.rules:
            found = members.setdefault(rule.sizes, [])
            if run and run[-1][0] == rule.sizes:
                run[-1] = (run[-1][0], run[-1][1], len(found) + 1, run[-1][3])
            else:
                run.append((rule.sizes, len(found), len(found) + 1, offset))
            found.append((number, rule))
            offset += rule.slot.numel
        runs.append(run)
    keys = sorted(members, key=lambda key: key[0] != "matrix")  # stable: by first appearance
    position = {key: i for i, key in enumerate(keys)}
    groups, first = [], 0
    for key in keys:
        groups.append(Group(*key, first, tuple(rule for _, rule in members[key])))
        first += len(groups[-1])
    ordered = [entry for key in keys for entry in members[key]]
    places = [batch.encoded[n].reduction.place.tolist() for n in range(len(batch))]
    copies = [batch.encoded[n].reduction.copy.tolist() for n in range(len(batch))]
    pieces = tuple(
        tuple(Piece(position[key], (start, stop), offset) for key, start, stop, offset in run)
        for run in runs
    )

    def column(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=batch.device)

    return Plan(
        tuple(architectures),
        tuple(groups),
        pieces,
        column([n for n, _ in ordered]),
        column([places[n][rule.node] for n, rule in ordered]),
        column([copies[n][rule.node] for n, rule in ordered]),
    )
