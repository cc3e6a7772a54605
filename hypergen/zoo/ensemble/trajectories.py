"""What a stack's training leaves behind: weights and metrics at the chosen steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergen.zoo.ensemble.member import Member
from hypergen.zoo.ensemble.stack import by_network
from hypergen.zoo.networks import Network


@dataclass(frozen=True)
class Trajectories:
    """Checkpoints of `M` networks at `C` steps.

    Attributes:
        network: Architecture of the stack.
        members: The `M` members.
        steps: The `C` steps, ascending; 0 is the start.
        weights: `[C, M, numel]` in the order of `network.spec()`, zero where a member is narrower.
        metrics: Split → metric → `[C, M]`.
    """

    network: Network
    members: tuple[Member, ...]
    steps: tuple[int, ...]
    weights: Tensor
    metrics: dict[str, dict[str, Tensor]]

    def by_network(self) -> Iterator[tuple[Network, list[int], Tensor]]:
        """Cuts padded members back to their own architecture.

        Yields:
            An architecture, the numbers of its `m` members, and their weights `[C, m, numel]` in
            the order of its own spec.
        """
        for own, rows, entries in by_network(self.network, self.members):
            yield own, rows, self.weights[:, torch.tensor(rows)][..., entries]
