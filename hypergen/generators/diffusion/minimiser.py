"""Minimiser: the perfect memoriser, which is what an unlimited denoiser would learn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import WeightsError
from hypergen.conditions import Condition
from hypergen.generators.diffusion.denoiser import Denoiser
from hypergen.generators.diffusion.process import Process

_CHUNK = 1 << 24  # numbers of stored latents that are compared at a time, in float64


class Minimiser(Denoiser):
    """The exact minimiser of the denoising loss on stored latents, in closed form.

    With K training points, each as likely as the others, the expected data behind x at noise levels
    (a, s) are Σ_k softmax_k(-‖x - a · p_k‖² / 2 s²) · p_k, and the best prediction is the one that
    says so. Sampling it returns training points. Nothing has to be learned: it is the control that
    a memorisation audit compares with.

    Any condition is ignored. The softmax is computed over chunks of the points, so that memory does
    not grow with them. Cost of a step: 4 · B · K · T · D operations in float64.

    Args:
        tokens: Number T of latent tokens.
        dim: Width D of a latent token.
        positions: `[T, 3]`, not read.
        mask: `[T, D]` bool, False where a latent is padding.
        condition_dim: Not read.
        points: Number K of points, which `latents` are set to later.
        process: `Process.to_dict()` of the process it denoises for.
    """

    def __init__(
        self,
        tokens: int,
        dim: int,
        positions: Tensor,
        mask: Tensor,
        condition_dim: int,
        points: int,
        process: dict[str, Any],
    ) -> None:
        options = {"points": points, "process": process}
        super().__init__(tokens, dim, positions, mask, condition_dim, options)
        self.process = Process.from_dict(process)
        self.register_buffer("latents", torch.zeros(points, tokens, dim))
        self.latents: Tensor

    @classmethod
    def of(
        cls,
        latents: Tensor,
        process: Process,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Minimiser:
        """Builds it from the latents that a denoiser would be trained on.

        Args:
            latents: `[K, T, D]`, finite, zero under the mask.
            process: What the denoiser would be trained for.
            positions: `[T, 3]`; zeros when not given.
            mask: `[T, D]`; all True when not given.

        Raises:
            WeightsError: No point, or points that are not finite.
        """
        if latents.dim() != 3 or not len(latents) or not bool(torch.isfinite(latents).all()):
            raise WeightsError(f"expected finite latents [K, T, D], got {list(latents.shape)}")
        count, tokens, dim = latents.shape
        positions = torch.zeros(tokens, 3, dtype=torch.long) if positions is None else positions
        mask = torch.ones(tokens, dim, dtype=torch.bool) if mask is None else mask
        made = cls(tokens, dim, positions, mask, 0, count, process.to_dict())
        made.latents = latents.detach().clone()
        return made.to(latents.device)

    def forward(self, x: Tensor, time: Tensor, condition: Condition | None = None) -> Tensor:
        """The best prediction from latents `[B, T, D]` at times `[B]`."""
        a, s = (level.flatten(1).double() for level in self.process.levels(time))
        seen = x.flatten(1).double()
        best = seen.new_full((len(x), 1), -torch.inf)
        total = torch.zeros_like(best)
        mean = torch.zeros_like(seen)
        rows = max(1, _CHUNK // seen.shape[1])
        for part in self.latents.flatten(1).split(rows):
            points = part.double()
            # -‖x - a p‖² / 2 s² without ‖x‖², which all points share.
            score = (a * (seen @ points.T) - a.square() / 2 * points.square().sum(1)) / s.square()
            largest = torch.maximum(best, score.amax(1, keepdim=True))
            weight = (score - largest).exp()
            kept = (best - largest).exp()
            total = total * kept + weight.sum(1, keepdim=True)
            mean = mean * kept + weight @ points
            best = largest
        data = (mean / total).to(x.dtype).unflatten(1, x.shape[1:])
        return self.process.of_data(x, data, time)
