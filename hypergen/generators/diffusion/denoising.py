"""The objective `denoising`: what generators that sample are trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hypergen._utils.errors import SpecError
from hypergen.generators.objectives import Mixture, Objective


class Denoising(Objective):
    """The loss of a generator that learns to denoise stored weights.

    The generator computes it, see `DiffusionGenerator.loss`; generated weights are not read.

    The batch holds `weights`, `[B, numel]`.
    """

    needs = frozenset({"weights"})

    def forward(self, weights: Any, batch: Mapping[str, Any]) -> Tensor:
        """What the generator put under `denoising`.

        Raises:
            SpecError: The generator does not denoise.
        """
        if "denoising" not in batch:
            raise SpecError(
                "the objective denoising needs a generator that samples, such as DiffusionGenerator"
            )
        value: Tensor = batch["denoising"]
        return value


def is_denoising(objective: object) -> bool:
    """Whether an objective is, or contains, `Denoising`."""
    if isinstance(objective, Mixture):
        return any(is_denoising(part) for part in objective.objectives)
    return isinstance(objective, Denoising)
