"""Diffusion: noise in a fixed number of levels, sampled through diffusers' schedulers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hypergen._utils.errors import SpecError
from hypergen.generators.diffusion.process import Predict, Prediction, Process
from hypergen.generators.diffusion.samplers import Watch, solve_diffusion


class Diffusion(Process):
    """Variance-preserving diffusion over a fixed number of noise levels: a² + s² = 1.

    Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020,
    arXiv:2006.11239. Velocity is a · ε - s · x0 (Salimans and Ho, ICLR 2022, arXiv:2202.00512).
    The cosine schedule (Nichol and Dhariwal, ICML 2021, arXiv:2102.09672) ends at the noise level
    of the linear one instead of at pure noise, where no prediction of noise could tell the data.

    Sampling takes some of the levels, evenly spaced from the noisiest on, through a scheduler of
    diffusers that is made for exactly these; nothing is clipped.

    Args:
        prediction: What the denoiser predicts.
        schedule: `"linear"` or `"cosine"`.
        levels: Number of noise levels.
        min_snr: Limit γ of the signal-to-noise ratio in the weights of the loss (Hang et al., ICCV
            2023, arXiv:2303.09556); None for plain squared errors of the prediction.
        sampler: `"ddpm"`, `"ddim"`, `"dpm++"` (DPM-Solver++, second order, multistep) or `"euler"`.
        steps: Steps of a sampling, at most `levels`.
        variance: Noise of a DDPM step: `"small"` (that of the posterior given the data) or
            `"large"` (that of the step forward).
    """

    kind: ClassVar[str] = "diffusion"

    def __init__(
        self,
        prediction: Prediction = "velocity",
        schedule: Literal["linear", "cosine"] = "linear",
        levels: int = 1000,
        min_snr: float | None = None,
        sampler: str = "dpm++",
        steps: int = 20,
        variance: Literal["small", "large"] = "small",
    ) -> None:
        options = {
            "prediction": prediction,
            "schedule": schedule,
            "levels": levels,
            "min_snr": min_snr,
            "sampler": sampler,
            "steps": steps,
            "variance": variance,
        }
        if schedule not in ("linear", "cosine") or variance not in ("small", "large"):
            raise SpecError(f"no schedule {schedule!r} or variance {variance!r}")
        if levels < 2 or (min_snr is not None and min_snr <= 0):
            raise SpecError("levels must be at least 2, and min_snr positive")
        self._count = levels
        super().__init__(prediction, sampler, steps, options)
        self.min_snr, self.variance = min_snr, variance
        self.signal = signal_levels(schedule, levels)  # a², float64, on the CPU
        self.register_buffer("data_level", self.signal.sqrt().float(), persistent=False)
        self.register_buffer("noise_level", (1 - self.signal).sqrt().float(), persistent=False)
        self.data_level: Tensor
        self.noise_level: Tensor

    @property
    def most_steps(self) -> int:
        """As many as there are noise levels."""
        return self._count

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Times of uniformly drawn levels."""
        return (torch.randint(self._count, (count,), generator=generator) + 1) / self._count

    def _index(self, time: Tensor) -> Tensor:
        return (time * self._count).round().long().clamp(1, self._count) - 1

    def levels(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Levels a and s nearest to times `[B]`."""
        index = self._index(time)
        return self.data_level[index, None, None], self.noise_level[index, None, None]

    def weight(self, time: Tensor) -> Tensor | None:
        """min(snr, γ) in units of the error of the data, for what is predicted."""
        if self.min_snr is None:
            return None
        a, s = (level.flatten() for level in self.levels(time))
        ratio = (a / s).square()
        limited = ratio.clamp(max=self.min_snr)
        if self.prediction == "data":
            return limited
        return limited / (ratio if self.prediction == "noise" else ratio + 1)

    def velocity(self, data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """That is a · noise - s · data."""
        a, s = self.levels(time)
        return a * noise - s * data

    def to_data(self, x: Tensor, output: Tensor, time: Tensor) -> Tensor:
        """The data that a prediction says are behind `x`."""
        a, s = self.levels(time)
        if self.prediction == "data":
            return output
        return (x - s * output) / a if self.prediction == "noise" else a * x - s * output

    def sample(
        self,
        predict: Predict,
        noise: Tensor,
        generators: Sequence[torch.Generator],
        watch: Watch | None = None,
    ) -> Tensor:
        """Takes noise to data; see `Process.sample`."""
        # Evenly spaced, the noisiest first; the schedulers step from each to the next exactly.
        chosen = torch.linspace(self._count, self._count / self.steps, self.steps).round().long()
        chosen = chosen.clamp(1) - 1

        def at(x: Tensor, step: int) -> Tensor:
            # In float32, whatever the latents: bfloat16 cannot tell neighbouring levels apart.
            time = float(chosen[step] + 1) / self._count
            return predict(x, torch.full((len(x),), time, device=x.device))

        settings = {"sampler": self.sampler, "variance": self.variance}
        signal = self.signal[chosen]
        return solve_diffusion(at, noise, signal, self.prediction, settings, generators, watch)


def signal_levels(schedule: str, levels: int) -> Tensor:
    """a² of every noise level, from the least noisy on, `[levels]` in float64.

    Args:
        schedule: `"linear"`: variances of the steps grow linearly, from 1e-4 to 0.02 for a thousand
            levels; `"cosine"`: a is a cosine.
        levels: Number of levels.
    """
    scale = 1000 / levels
    beta = torch.linspace(1e-4, 0.02, levels, dtype=torch.float64) * scale
    linear = (1 - beta.clamp(max=0.999)).cumprod(0)
    if schedule == "linear":
        return linear
    first, last = (math.acos(math.sqrt(float(value))) for value in (linear[0], linear[-1]))
    return torch.linspace(first, last, levels, dtype=torch.float64).cos().square()
