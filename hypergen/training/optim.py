"""Which parameters decay, and how the learning rate goes."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

_UNDECAYED = (nn.Embedding, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trained parameters in two groups: matrices decay; all else does not.

    All else: vectors, embeddings, norms, and `offset`, the start θ0 that a head adds its output to
    (decaying it would pull the generated network itself towards zero).

    Args:
        module: Whose parameters.
        weight_decay: Decoupled weight decay of the matrices.
    """
    decay: list[Tensor] = []
    rest: list[Tensor] = []
    seen: set[int] = set()
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            decays = parameter.dim() > 1 and "offset" not in name
            (decay if decays and not isinstance(part, _UNDECAYED) else rest).append(parameter)
    groups = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def lr_factor(
    step: int,
    *,
    total: float,
    warmup: float,
    schedule: str = "cosine",
    final: float = 0.0,
    first: int = 0,
) -> float:
    """Learning rate of a step as a fraction of its peak.

    Args:
        step: Number of the step, from 0.
        total: Steps in all; infinite if not known, then there is no decay.
        warmup: Steps of linear warm-up; below 1, a fraction of `total`.
        schedule: `"cosine"` or `"constant"`.
        final: What the cosine ends at.
        first: Steps of a first stage; warm-up and decay happen once in each stage.
    """
    if step < first < total:
        total = first
    elif first < total:
        step, total = step - first, total - first
    if warmup < 1:
        warmup = warmup * total if math.isfinite(total) else 0
    warmup = math.ceil(warmup)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant" or not math.isfinite(total):
        return 1.0
    done = min(1.0, (step - warmup) / max(1.0, total - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
