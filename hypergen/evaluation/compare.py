"""Generated weights against those trained on the same task, entry by entry and as updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.seeding import generator as seeded
from hypergen.specs import LoRASpec, Weights, gram

MOST_ENTRIES = 20_000  # of each role, drawn at random


@dataclass(frozen=True)
class WeightComparison:
    """What is left of two sets of weights once compared: small, whatever the model's size.

    Attributes:
        entries: Role → generated and oracle entries, `[≤ MOST_ENTRIES]` each.
        correlation: Role → Pearson correlation of all entries; None if one side is constant.
        cosine: `[n]`, similarity of the updates of each task.
        cosine_other: `[n]`, similarity to the oracle update of another task, for comparison.
        what: What the cosines compare, in words.
    """

    entries: dict[str, tuple[Tensor, Tensor]]
    correlation: dict[str, float | None]
    cosine: Tensor
    cosine_other: Tensor
    what: str

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the entries."""
        return {
            "what": self.what,
            "cosine": self.cosine,
            "cosine_mean": float(self.cosine.nanmean()),
            "cosine_other_mean": float(self.cosine_other.nanmean()),
            "correlation": self.correlation,
        }


@torch.no_grad()
def compare_weights(
    generated: Weights, oracle: Weights, partner: Tensor, seed: int = 0
) -> WeightComparison:
    """Compares two batches of weights, row by row.

    Args:
        generated: `n` networks.
        oracle: `n` networks of the same tasks.
        partner: `[n]`, for each row the row of another task (-1: none).
        seed: Seed of the entries that are kept.
    """
    entries: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    for group, own, other in zip(
        generated.spec.groups, generated.groups, oracle.groups, strict=True
    ):
        mine, theirs = entries.setdefault(group.role, ([], []))
        mine.append(own.detach().float().cpu().flatten())
        theirs.append(other.detach().float().cpu().flatten())
    kept, correlation = {}, {}
    for role, (mine, theirs) in entries.items():
        x, y = torch.cat(mine), torch.cat(theirs)
        correlation[role] = pearson(x, y)
        if len(x) > MOST_ENTRIES:
            index = torch.randint(len(x), (MOST_ENTRIES,), generator=seeded("entries", seed, role))
            x, y = x[index], y[index]
        kept[role] = (x, y)
    other = update_cosine(generated, oracle[partner.clamp(min=0)])
    is_lora = isinstance(generated.spec, LoRASpec)
    return WeightComparison(
        kept,
        correlation,
        update_cosine(generated, oracle),
        torch.where(partner < 0, torch.nan, other),
        "ΔW over all modules" if is_lora else "weights minus their common start",
    )


@torch.no_grad()
def update_cosine(a: Weights, b: Weights) -> Tensor:
    """Cosine similarity of what two batches of weights change, row by row.

    LoRAs by the inner products ⟨ΔW_a, ΔW_b⟩ summed over modules, through the low-rank Gram
    identity; others by their entries minus the spec's starting values.

    Returns:
        `[B]` in float64 on the CPU; NaN where one of the two changes nothing.
    """
    spec = a.spec
    if isinstance(spec, LoRASpec):
        cross, own, other = (torch.zeros(len(a), dtype=torch.float64) for _ in range(3))
        for module in spec.modules:
            (a1, b1), (a2, b2) = spec.pair(a, module), spec.pair(b, module)
            square = spec.scaling(module) ** 2
            for total, pairs in (
                (cross, (a1, b1, a2, b2)),
                (own, (a1, b1, a1, b1)),
                (other, (a2, b2, a2, b2)),
            ):
                total += square * gram(*pairs, dtype=torch.float64).cpu()
        return torch.where(own * other > 0, cross / (own * other).sqrt(), torch.nan)
    start = spec.initial().double()
    x, y = (w.flat().detach().cpu().double() - start for w in (a, b))
    norm = x.norm(dim=1) * y.norm(dim=1)
    return torch.where(norm > 0, (x * y).sum(1) / norm, torch.nan)


def pearson(x: Tensor, y: Tensor) -> float | None:
    """Correlation of two vectors; None if one of them is constant."""
    if len(x) < 2:
        return None
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    norm = float(x.norm() * y.norm())
    return float(x @ y) / norm if norm > 1e-12 else None
