"""G.pt: from the weights that a network has and the metric it should have to other weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import ConditionError, SpecError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.diffusion.generator import DiffusionGenerator
from hypergen.generators.diffusion.whitening import Scope
from hypergen.specs import Weights, WeightSpec

Measure = Callable[[Weights], Tensor]


class GPt(DiffusionGenerator):
    """Current weights, current metric and wanted metric → weights that have the wanted one.

    Peebles, Radosavovic, Brooks, Efros and Malik, "Learning to Learn with Generative Models of
    Neural Network Checkpoints" (G.pt), 2022, arXiv:2209.12892. A diffusion over weights that
    predicts data, as the current weights plus a difference (`UpdateDenoiser`): before it is trained
    it returns the weights that it was given. Trained on pairs of checkpoints of one run
    (`hypergen.training.ZooPairsDataModule`), permuted alike at random, one sampling does what many
    steps of an optimiser do.

    The encoder is a `FusedEncoder` of `weights` (`WeightsEncoder`) and `metric` (`MetricEncoder`):
    `generate(weights=…, metric=[[current, wanted]])`, or `prompt` and `walk`.

    What differs: projections are shared by all tokens, so that their number does not matter; the
    metric is of training or validation samples (the published prompts are losses on test samples).

    Args:
        spec: What to emit.
        encoder: Encodes current weights and metric values.
        codec: See `DiffusionGenerator`; exact codecs return the given weights before training.
        denoiser: What predicts the difference: name of a `Denoiser`, or a mapping with options.
        process: See `DiffusionGenerator`; it must predict data.
        codec_steps: See `DiffusionGenerator`.
        whiten: See `DiffusionGenerator`; `"global"` treats hidden units alike.
        guidance: See `DiffusionGenerator`; what is left out without the condition is the metric,
            the current weights stay.
        condition_dropout: See `DiffusionGenerator`.
        chunk: See `DiffusionGenerator`.

    Raises:
        SpecError: The process does not predict data, or another setting is out of range.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        codec: str | dict[str, Any] | None = None,
        denoiser: str | dict[str, Any] = "DiT",
        process: str | dict[str, Any] | None = None,
        codec_steps: int = 1000,
        whiten: Scope = "global",
        guidance: float = 1.0,
        condition_dropout: float = 0.0,
        chunk: int = 256,
    ) -> None:
        codec = {"name": "TokenCodec", "normalize": "slot"} if codec is None else codec
        process = {"name": "Diffusion", "prediction": "data"} if process is None else process
        named = denoiser if isinstance(denoiser, str) else denoiser.get("name")
        if named != "UpdateDenoiser":  # else it is one that was saved
            denoiser = {"name": "UpdateDenoiser", "denoiser": denoiser}
        super().__init__(
            spec,
            encoder,
            codec,
            denoiser,
            process,
            codec_steps,
            whiten,
            guidance,
            condition_dropout,
            chunk,
        )
        if self.process.prediction != "data":
            raise SpecError(
                "G.pt predicts data, as the current weights plus a difference: write prediction: "
                f"data in the process, not {self.process.prediction}"
            )

    # -- the current weights, as latents -------------------------------------------------------

    def _of_latents(self, condition: Condition) -> Condition:
        if condition.weights is None:
            raise ConditionError(
                "this generator changes given weights: give weights= beside metric="
            )
        latents = self.to_latents(condition.weights.to(self.device))
        return dataclasses.replace(condition, weights=latents.flatten(1))

    def _training_condition(self, batch: Mapping[str, Any]) -> Condition | None:
        condition = super()._training_condition(batch)
        return None if condition is None else self._of_latents(condition)

    def _sample(self, condition: Condition, *args: Any) -> Weights:
        return super()._sample(self._of_latents(condition), *args)

    def memoriser(self, flat: Tensor) -> DiffusionGenerator:
        """There is none: what is learned are changes, not checkpoints.

        Raises:
            SpecError: Always.
        """
        raise SpecError("G.pt changes given weights: it has no memoriser without a condition")

    # -- prompts -------------------------------------------------------------------------------

    @torch.no_grad()
    def prompt(
        self,
        weights: Weights | Tensor,
        current: Tensor | Sequence[float] | float,
        wanted: Tensor | Sequence[float] | float,
        *,
        seed: int = 0,
        recursive: int = 1,
        measure: Measure | None = None,
    ) -> Weights:
        """Asks for networks with other metric values.

        Args:
            weights: `B` networks, or flat numbers `[B, numel]`.
            current: Metric value of each, or one for all.
            wanted: Wanted value of each, or one for all.
            seed: Seed of the draws.
            recursive: How often to prompt, each time from the last result.
            measure: Measures the metric of `B` networks between two prompts, `[B]`; when not given
                each prompt is believed to have been met.

        Returns:
            `B` networks.

        Raises:
            ConditionError: Values and networks differ in number, or a value is bad.
        """
        if recursive < 1:
            raise ConditionError(f"recursive must be at least 1, not {recursive}")
        flat = weights.flat() if isinstance(weights, Weights) else torch.atleast_2d(weights)
        now, goal = (_values(v, len(flat)) for v in (current, wanted))
        out: Weights | None = None
        for turn in range(recursive):
            metric = torch.stack([now, goal], dim=1)
            # Another noise each time: else a prompt that went wrong would go wrong again.
            out = self.generate(weights=flat, metric=metric, seed=seed + turn)
            flat, last = out.flat(), turn == recursive - 1
            now = now if last else goal if measure is None else measure(out).float().cpu()
        assert out is not None
        out.provenance = {
            "generator": type(self).__name__,
            "wanted": goal.tolist(),
            "recursive": recursive,
            **self.provenance,
        }
        return out

    def walk(
        self,
        weights: Weights | Tensor,
        current: Tensor | Sequence[float] | float,
        values: Tensor | Sequence[float],
        *,
        seed: int = 0,
    ) -> Weights:
        """Asks for a range of values from one start, with one and the same noise.

        Args:
            weights: `B` networks, or flat numbers `[B, numel]`.
            current: Metric value of each, or one for all.
            values: `[V]` wanted values.
            seed: Seed of the noise, which all values share: what differs is due to the value.

        Returns:
            `B · V` networks, ordered network by network.
        """
        flat = weights.flat() if isinstance(weights, Weights) else torch.atleast_2d(weights)
        goals = torch.as_tensor(values, dtype=torch.float32).flatten()
        now = _values(current, len(flat)).repeat_interleave(len(goals))
        return self.prompt(
            flat.repeat_interleave(len(goals), 0), now, goals.repeat(len(flat)), seed=seed
        )


def _values(given: Tensor | Sequence[float] | float, count: int) -> Tensor:
    """`[count]` values, or one for all."""
    values = torch.as_tensor(given, dtype=torch.float32).flatten().cpu()
    if len(values) not in (1, count):
        raise ConditionError(f"{len(values)} metric values were given for {count} networks")
    return values.expand(count)
