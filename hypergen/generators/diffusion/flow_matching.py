"""FlowMatching: a straight path from noise to data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from hypergen._utils.errors import SpecError
from hypergen.generators.diffusion.process import Predict, Prediction, Process
from hypergen.generators.diffusion.samplers import Watch, solve_flow


class FlowMatching(Process):
    """The straight path x_t = (1 - t) · data + t · noise, with velocity noise - data.

    Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023, arXiv:2210.02747. Noise has
    unit variance and is drawn anew for every training example.

    Args:
        prediction: `"velocity"`, or `"data"`, from which the velocity is (x - data) / t.
        sampler: `"euler"` (through diffusers), `"heun"` or `"rk4"`, on evenly spaced times. The
            last step, to t = 0, is one of Euler's: it lands on the predicted data.
        steps: Steps of a sampling; the denoiser is evaluated once, twice or four times in each.
    """

    kind: ClassVar[str] = "flow"

    def __init__(
        self,
        prediction: Prediction = "velocity",
        sampler: str = "heun",
        steps: int = 20,
    ) -> None:
        options = {"prediction": prediction, "sampler": sampler, "steps": steps}
        if prediction == "noise":
            raise SpecError("noise says nothing of the velocity at t = 1: predict data or velocity")
        super().__init__(prediction, sampler, steps, options)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniform times."""
        return 1 - torch.rand(count, generator=generator)

    def levels(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """1 - t and t."""
        return (1 - time)[:, None, None], time[:, None, None]

    def weight(self, time: Tensor) -> Tensor | None:
        """All are 1."""
        return None

    def velocity(self, data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """That is noise - data."""
        return noise - data

    def to_data(self, x: Tensor, output: Tensor, time: Tensor) -> Tensor:
        """The data that a prediction says are behind `x`."""
        return output if self.prediction == "data" else x - time[:, None, None] * output

    def sample(
        self,
        predict: Predict,
        noise: Tensor,
        generators: Sequence[torch.Generator],
        watch: Watch | None = None,
    ) -> Tensor:
        """Takes noise to data; see `Process.sample`."""

        def velocity(x: Tensor, time: float) -> Tensor:
            output = predict(x, torch.full((len(x),), time, device=x.device))
            return output if self.prediction == "velocity" else (x - output) / time

        return solve_flow(velocity, noise, self.sampler, self.steps, watch)
