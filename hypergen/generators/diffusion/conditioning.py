"""Conditions of denoisers: dropped in training, amplified in sampling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hypergen.conditions import Condition
from hypergen.generators.diffusion.denoiser import Denoiser


def dropped(condition: Condition, drop: Tensor, null: Tensor) -> Condition:
    """Replaces some rows by a condition that says nothing.

    Args:
        condition: `[B]` conditions.
        drop: `[B]` bool, the rows to replace.
        null: `[D]`, their only token, and their pooled vector.
    """
    tokens = condition.tokens.masked_fill(drop[:, None, None], 0)
    first = torch.where(drop[:, None], null.to(tokens), tokens[:, 0])
    tokens = torch.cat([first[:, None], tokens[:, 1:]], dim=1)
    only = torch.arange(tokens.shape[1], device=tokens.device) == 0
    return replace(
        condition,
        tokens=tokens,
        mask=torch.where(drop[:, None], only, condition.mask),
        pooled=torch.where(drop[:, None], null.to(tokens), condition.pooled),
    )


class Guidance:
    """Classifier-free guidance: uncond + w · (cond - uncond), in one batched call a step.

    Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022, arXiv:2207.12598.

    Args:
        denoiser: What predicts.
        factor: w; with 1 the condition alone is asked for.
        null: `[D]`, the condition that says nothing.
    """

    def __init__(self, denoiser: Denoiser, factor: float, null: Tensor | None) -> None:
        self.denoiser, self.factor, self.null = denoiser, factor, null

    def read(self, condition: Condition | None) -> Any:
        """What all steps need of the condition, and of the one that says nothing."""
        if condition is None or self.null is None or self.factor == 1:
            return self.denoiser.read(condition)
        every = torch.ones(len(condition), dtype=torch.bool, device=condition.tokens.device)
        nothing = dropped(condition, every, self.null)
        return self.denoiser.read(Condition.cat([condition, nothing]))

    def step(self, x: Tensor, time: Tensor, memory: Any) -> Tensor:
        """The guided prediction from `x` `[B, T, D]` at times `[B]`."""
        if self.null is None or self.factor == 1:
            return self.denoiser.step(x, time, memory)
        both = self.denoiser.step(torch.cat([x, x]), torch.cat([time, time]), memory)
        known, nothing = both.chunk(2)
        return nothing + self.factor * (known - nothing)
