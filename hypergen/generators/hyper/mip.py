"""Input encoding of constant norm (MIP)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MIPEncoding(nn.Module):
    """E(γ) = [cos(πγ/2), sin(πγ/2)], of one norm whatever γ.

    Ortiz, Guttag and Dalca, "Magnitude Invariant Parametrizations Improve Hypernetwork Learning",
    ICLR 2024, arXiv:2304.07645. The scale of a plain input passes on to the generated weights; the
    encoded one does not. The other half of MIP, θ = θ0 + h(E(γ)), is `init="theta0"` of the heads.

    Args:
        squash: Put unbounded inputs through a sigmoid first; without it inputs lie in [0, 1].
    """

    def __init__(self, squash: bool = False) -> None:
        super().__init__()
        self.squash = squash

    def forward(self, inputs: Tensor) -> Tensor:
        """`[..., D]` → `[..., 2D]`, with squared norm D."""
        inputs = inputs.sigmoid() if self.squash else inputs
        angle = inputs * (math.pi / 2)
        return torch.cat([angle.cos(), angle.sin()], dim=-1)
