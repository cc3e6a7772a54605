"""Process: how latents become noise, what is predicted on the way, and the way back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.generators.diffusion.codec import build
from hypergen.generators.diffusion.samplers import SAMPLERS, Watch

Prediction = Literal["noise", "data", "velocity"]
Predict = Callable[[Tensor, Tensor], Tensor]

_SMALLEST = 1e-3  # time below which data is not told from its noisy copy


class Process(nn.Module, ABC):
    """x_t = a(t) · data + s(t) · noise, for t from 0 (data) to 1 (noise).

    A subclass passes its constructor's arguments to `super().__init__`, and registers itself by
    class name.

    Args:
        prediction: What a denoiser predicts: `"noise"` (ε), `"data"` (x0) or `"velocity"` (v).
        sampler: Name of a sampler that the process has.
        steps: Steps of a sampling.
        options: All constructor arguments, JSON-serialisable.

    Raises:
        SpecError: A setting is unknown or out of range.
    """

    kind: ClassVar[str]
    _registry: ClassVar[dict[str, type[Process]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Process._registry[cls.__name__] = cls

    def __init__(
        self, prediction: Prediction, sampler: str, steps: int, options: Mapping[str, Any]
    ) -> None:
        super().__init__()
        if prediction not in get_args(Prediction):
            raise SpecError(f"prediction is noise, data or velocity, not {prediction!r}")
        self.prediction: Prediction = prediction
        self.options: dict[str, Any] = json.loads(json.dumps(dict(options)))
        self.choose(sampler, steps)

    def choose(self, sampler: str | None = None, steps: int | None = None) -> None:
        """Changes sampler or number of steps; both are free to choose after training.

        Raises:
            SpecError: The process has no such sampler, or the steps are out of range.
        """
        sampler = self.options["sampler"] if sampler is None else sampler
        steps = self.options["steps"] if steps is None else steps
        if sampler not in SAMPLERS[self.kind]:
            known = ", ".join(SAMPLERS[self.kind])
            raise SpecError(f"{type(self).__name__} is sampled by {known}, not by {sampler!r}")
        if not 1 <= steps <= self.most_steps:
            raise SpecError(f"steps must be 1 to {self.most_steps}, not {steps}")
        self.options |= {"sampler": sampler, "steps": steps}
        self.sampler, self.steps = sampler, steps

    @property
    def most_steps(self) -> int:
        """Most steps that a sampling can have."""
        return 100_000

    # -- the way to noise ----------------------------------------------------------------------

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws times of training, `[count]` in (0, 1], on the CPU."""

    @abstractmethod
    def levels(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """a(t) and s(t) of times `[B]`, `[B, 1, 1]` each."""

    @abstractmethod
    def weight(self, time: Tensor) -> Tensor | None:
        """Weights of the squared errors at times `[B]`; None where all are 1."""

    def corrupt(self, data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """x_t of `[B, T, D]` data and noise at times `[B]`."""
        a, s = self.levels(time)
        return a * data + s * noise

    # -- predictions ---------------------------------------------------------------------------

    @abstractmethod
    def velocity(self, data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What `"velocity"` means."""

    def target(self, data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What a denoiser should predict."""
        if self.prediction == "noise":
            return noise
        return data if self.prediction == "data" else self.velocity(data, noise, time)

    def of_data(self, x: Tensor, data: Tensor, time: Tensor) -> Tensor:
        """The prediction that says that the data behind `x` are `data`."""
        if self.prediction == "data":
            return data
        a, s = self.levels(time)
        return self.target(data, (x - a * data) / s.clamp(min=_SMALLEST), time)

    @abstractmethod
    def to_data(self, x: Tensor, output: Tensor, time: Tensor) -> Tensor:
        """The data that a prediction `output` says are behind `x`."""

    # -- the way back --------------------------------------------------------------------------

    @abstractmethod
    def sample(
        self,
        predict: Predict,
        noise: Tensor,
        generators: Sequence[torch.Generator],
        watch: Watch | None = None,
    ) -> Tensor:
        """Takes noise to data.

        Args:
            predict: (x `[B, T, D]`, time `[B]`) → prediction.
            noise: `[B, T, D]`, standard normal.
            generators: One for each row, on the CPU, for samplers that draw noise on the way.
            watch: Called after every step.

        Returns:
            `[B, T, D]`.

        Raises:
            MissingExtraError: The sampler needs diffusers, which is not installed.
        """

    # -- files ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Name and constructor arguments, JSON-serialisable."""
        return {"name": type(self).__name__, **self.options}

    @staticmethod
    def from_dict(data: str | Mapping[str, Any]) -> Process:
        """Builds a process from `to_dict`, or from its name alone.

        Raises:
            SpecError: Unknown name, or arguments that it does not take.
        """
        found = build(Process._registry, data, "process", ())
        assert isinstance(found, Process)
        return found
