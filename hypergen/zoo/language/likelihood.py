"""Log-likelihoods of parts of texts under many networks: one tree of texts for each network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hypergen.specs import AdapterSpec, LoRASpec, PrefixSpec, Weights, WeightSpec
from hypergen.zoo.language.branches import Laid, Tree, lay_out, paths


def takes_masks(spec: WeightSpec) -> bool:
    """Whether targets of a spec take a 4-D attention mask, and so a tree of texts as one row."""
    return isinstance(spec, (LoRASpec, AdapterSpec, PrefixSpec))


@dataclass(frozen=True)
class Reader:
    """How a network reads trees of texts.

    Attributes:
        network: Gives logits at chosen positions (see `hypergen.zoo.language.answers`).
        pad: Filling of rows.
        most: Most tokens of a text.
        pack: Whether a tree is one row. The target must then take a 4-D attention mask: the
            network itself does; for others see `takes_masks`.
    """

    network: nn.Module
    pad: int
    most: int
    pack: bool = True

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the network."""
        return next(self.network.parameters()).dtype

    def lay_out(self, trees: Sequence[Tree], pack: bool | None = None) -> Laid:
        """Trees as a batch: a row each, or (unpacked) a row for each branch with labels."""
        pack = self.pack if pack is None else pack
        return lay_out(trees if pack else paths(trees), self.pad, self.dtype, self.most)

    @torch.no_grad()
    def read(
        self, call: Callable[..., Any], weights: Weights | None, trees: Sequence[Tree]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Reads one tree with each network.

        Args:
            call: The target; or, without weights, the network itself, called with inputs alone.
            weights: A network for each tree; None for the network itself.
            trees: What each reads.

        Returns:
            For each tree, the summed log-likelihoods of its branches with labels and the numbers of
            their labels, `[branches]` each.
        """
        counts = [sum(branch.labels > 0 for branch in tree) for tree in trees]
        if weights is None or self.pack:
            laid = self.lay_out(trees, True)
            kept = torch.arange(laid.branches)
        else:
            # Every network needs as many rows: the last one is repeated.
            rows = [paths([tree]) for tree in trees]
            most = max(counts)
            filled = [row for own in rows for row in (*own, *[own[-1]] * (most - len(own)))]
            laid = self.lay_out(filled, True)
            place = torch.arange(most)
            kept = (place < torch.tensor(counts)[:, None]).flatten().nonzero()[:, 0]
        inputs = {name: value.to(self.device) for name, value in laid.inputs.items()}
        logits = call(**inputs) if weights is None else call(weights, inputs)
        sums, sizes = laid.log_likelihoods(logits)[kept], laid.counts[kept]
        return list(sums.split(counts)), list(sizes.split(counts))
