"""DiffusionGenerator: noise and a condition in, sampled weights out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError, WeightsError
from hypergen._utils.progress import progress
from hypergen._utils.seeding import generator as seeded
from hypergen.conditions import Condition, ConditionEncoder, NoCondition
from hypergen.generators.base import Generator
from hypergen.generators.diffusion.codec import WeightCodec
from hypergen.generators.diffusion.conditioning import Guidance, dropped
from hypergen.generators.diffusion.denoiser import Denoiser
from hypergen.generators.diffusion.denoising import Denoising, is_denoising
from hypergen.generators.diffusion.process import Process
from hypergen.generators.diffusion.training_rows import training_rows
from hypergen.generators.diffusion.whitening import Scope, Whitening
from hypergen.specs import Weights, WeightSpec

_ROWS = 256  # checkpoints that are encoded at a time


class DiffusionGenerator(Generator):
    """Weights as latents of a codec, sampled by a diffusion or a flow.

    Training takes at most two stages in one fit. The first `codec_steps` batches train the codec,
    if it has something to train. Then it is frozen, the latents of the training checkpoints are
    whitened (once; the statistics are saved), and the denoiser is trained to predict noise, data or
    velocity: min E ‖denoiser(x_t, t, c) - target‖². Train with the objective `denoising`, alone or
    in a mixture: other objectives then see the weights behind the noisy latents, as the denoiser
    predicts them. The number of batches is counted in a buffer, so that a resumed run goes on where
    it was, also across the stages.

    `sample`, which `generate` uses, draws the noise of each row by the row's own seed and takes it
    to data in `process.steps` steps; `forward` does so with seed 0, differentiably.

    On several processes the first stage needs `strategy="ddp_find_unused_parameters_true"`: it
    leaves the denoiser alone, as the second one does the codec.

    Cost: a training step encodes a batch and evaluates the denoiser forwards and backwards; a
    sample costs `process.steps` evaluations (times two or four for Heun and RK4), twice with
    guidance, and one decoding. What depends on the condition alone is computed once for all steps.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition; `NoCondition` for none.
        codec: Weights ⇄ latents: name of a `WeightCodec`, or `{"name": …, **options}`.
        denoiser: Name of a `Denoiser`, or `{"name": …, **options}`.
        process: Name of a `Process` (`Diffusion`, `FlowMatching`), or `{"name": …, **options}`.
        codec_steps: Batches that train the codec; without effect if there is nothing to train.
        whiten: What shares the mean and spread of the latents: `"entry"` (each has its own),
            `"global"` or `"none"`, see `Whitening`.
        guidance: Factor w of classifier-free guidance, uncond + w · (cond - uncond); 1 for none.
        condition_dropout: Share of training examples whose condition is replaced by a learned one
            that says nothing, which guidance needs.
        chunk: Most networks that are sampled at a time.

    Raises:
        SpecError: A setting is unknown or out of range.
    """

    unaveraged = ("codec.",)

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        codec: str | dict[str, Any] = "TokenCodec",
        denoiser: str | dict[str, Any] = "DiT",
        process: str | dict[str, Any] = "Diffusion",
        codec_steps: int = 1000,
        whiten: Scope = "entry",
        guidance: float = 1.0,
        condition_dropout: float = 0.1,
        chunk: int = 256,
    ) -> None:
        config = {
            "codec": codec,
            "denoiser": denoiser,
            "process": process,
            "codec_steps": codec_steps,
            "whiten": whiten,
            "guidance": guidance,
            "condition_dropout": condition_dropout,
            "chunk": chunk,
        }
        super().__init__(spec, encoder, config)
        if codec_steps < 0 or chunk < 1 or not 0 <= condition_dropout < 1:
            raise SpecError("codec_steps, chunk or condition_dropout is out of range")
        self.codec_steps, self.chunk = codec_steps, chunk
        self.whiten: Scope = whiten
        self.guidance, self.condition_dropout = guidance, condition_dropout
        self.conditional = not isinstance(encoder, NoCondition)
        if guidance != 1 and not (self.conditional and condition_dropout):
            raise SpecError("guidance needs a condition, and condition_dropout above 0")
        self.codec = WeightCodec.from_dict(spec, codec)
        self.process = Process.from_dict(process)
        self.null = nn.Parameter(torch.randn(encoder.dim)) if self.conditional else None
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.register_buffer("whitened", torch.tensor(False))
        self.batches: Tensor
        self.whitened: Tensor
        self._done: tuple[int, bool] | None = None  # the two above, read once
        self._rows: Callable[[], Tensor] | None = None  # the training checkpoints
        # So that when the denoiser is made does not matter for how it starts.
        self._seed = int(torch.randint(1 << 62, ()))
        if self.codec.sized:
            self._make_denoiser()

    def _make_denoiser(self) -> None:
        codec = self.codec
        width = self.encoder.dim if self.conditional else 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            self.denoiser = Denoiser.from_dict(
                self.config["denoiser"],
                codec.tokens,
                codec.dim,
                codec.positions,
                codec.mask,
                width,
            ).to(self.device)
        self.whitening = Whitening(codec.mask, self.whiten).to(self.device)

    @property
    def device(self) -> torch.device:
        """Device of the buffers: there may be no parameters."""
        return self.batches.device

    # -- stages of training --------------------------------------------------------------------

    @property
    def first_stage(self) -> int:
        """Batches that train the codec."""
        return self.codec_steps if self.codec.trained else 0

    @property
    def stage(self) -> int:
        """1 while the codec is trained, 2 while the denoiser is."""
        return 1 if self._progress()[0] < self.first_stage else 2

    def _progress(self) -> tuple[int, bool]:
        """Batches so far, and whether latents are whitened, without waiting for a device."""
        if self._done is None:
            self._done = int(self.batches), bool(self.whitened)
        return self._done

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._done = None

    def prepare(self, data: Any) -> None:
        """Fits the codec to the training checkpoints, unless it is fitted.

        Args:
            data: Has `training_weights()`, which returns `[N, numel]`, or a `zoo`.

        Raises:
            SpecError: It has neither.
        """
        self._rows = training_rows(data)
        if not bool(self.codec.fitted):
            if self._rows is None:
                raise SpecError(
                    f"{type(self).__name__} learns from stored weights, and {type(data).__name__} "
                    "has none: give it a zoo"
                )
            self.codec.fit(self._rows().to(self.device))
            if not hasattr(self, "denoiser"):
                self._make_denoiser()
                self.config["codec"] = self.codec.to_dict()
        if not self.first_stage and not self._progress()[1]:
            self._whiten()

    def _whiten(self) -> None:
        """Takes mean and spread of the latents of the training checkpoints, chunk by chunk."""
        if self.whiten != "none":
            if self._rows is None:
                raise SpecError("prepare(data) must come before training the denoiser")
            parts = self._rows().split(_ROWS)
            with torch.no_grad():
                self.whitening.fit(self.codec.encode(part.to(self.device)) for part in parts)
        self.whitened.fill_(True)
        self._done = None

    # -- weights and latents -------------------------------------------------------------------

    def to_latents(self, flat: Tensor) -> Tensor:
        """Flat `[B, numel]` → whitened latents `[B, T, D]`, zero under the codec's mask."""
        out: Tensor = self.whitening(self.codec.encode(flat))
        return out

    def from_latents(self, latents: Tensor) -> Weights:
        """Whitened latents `[B, T, D]` → weights."""
        return self.spec.from_flat(self.codec.decode(self.whitening.inverse(latents)))

    # -- training ------------------------------------------------------------------------------

    def loss(self, batch: Mapping[str, Any], objective: Any) -> Tensor:
        """Scalar loss of a batch, which holds `weights` and, for conditional ones, `condition`.

        When not training, noise and times are the same at every call.
        """
        if not is_denoising(objective):
            return super().loss(batch, objective)
        flat = batch["weights"].to(self.device)
        stage = self.stage
        if stage == 2 and not self._progress()[1]:
            self._whiten()
        if self.training:
            batches, whitened = self._progress()
            self.batches += 1
            self._done = (batches + 1, whitened)
        if stage == 1:
            return self.codec.loss(flat) if self.training else self.codec.steady_loss(flat)
        # Whitening knows the latents of this codec: other objectives, and current weights that are
        # encoded, must not move it.
        with self.codec.frozen():
            return self._denoise(flat, batch, objective)

    def _denoise(self, flat: Tensor, batch: Mapping[str, Any], objective: Any) -> Tensor:
        data = self.to_latents(flat)
        fixed = None if self.training else seeded("diffusion validation", len(data))
        time = self.process.draw(len(data), fixed).to(data.device)
        if fixed is None:
            noise = torch.randn_like(data)
        else:
            noise = torch.randn(data.shape, generator=fixed).to(data)
        noise = noise.masked_fill(self.whitening.padding, 0)
        condition = self._training_condition(batch)
        x = self.process.corrupt(data, noise, time)
        target = self.process.target(data, noise, time)
        real = ~self.whitening.padding
        subset = self.denoiser.draw() if self.training else None
        if subset is None:
            output = self.denoiser(x, time, condition)
        else:
            x, target, real = x[:, subset], target[:, subset], real[subset]
            output = self.denoiser(x, time, condition, subset)
        errors = ((output - target) * real).square().sum((1, 2)) / real.sum()
        weight = self.process.weight(time)
        value = (errors if weight is None else errors * weight).mean()
        if isinstance(objective, Denoising):
            return objective(None, {**batch, "denoising": value})
        if subset is not None:
            raise SpecError("a denoiser that sees some of the tokens is trained by denoising alone")
        expected = self.process.to_data(x, output, time)
        total: Tensor = objective(self.from_latents(expected), {**batch, "denoising": value})
        return total

    def _training_condition(self, batch: Mapping[str, Any]) -> Condition | None:
        if not self.conditional:
            return None
        condition: Condition = batch["condition"]
        if "gather" in batch:
            condition = condition[batch["gather"]]
        if not (self.training and self.condition_dropout):
            return condition
        assert self.null is not None
        drop = torch.rand(len(condition)) < self.condition_dropout
        return dropped(condition, drop.to(self.device), self.null)

    # -- sampling ------------------------------------------------------------------------------

    def forward(self, condition: Condition) -> Weights:
        """Weights of the noise of seed 0, for each row of the condition, differentiably."""
        return self.sample(condition, [0] * len(condition))

    def sample(self, condition: Condition, seeds: Sequence[int]) -> Weights:
        """Draws the noise of each row by its own seed, and takes it to weights.

        Raises:
            WeightsError: A step made NaN or infinity; names step, token and row. Or the codec has
                not been fitted, nor loaded.
        """
        if not hasattr(self, "denoiser"):
            raise WeightsError("the codec is not fitted: call prepare(data), or load a generator")
        parts, rows = [], range(len(condition))
        total = len(condition) * self.process.steps
        with progress(total=total, desc=f"sampling {len(condition)}", unit="step") as bar:
            for start in range(0, len(condition), self.chunk):
                part = rows[start : start + self.chunk]
                own = condition if len(part) == len(rows) else condition[part.start : part.stop]
                parts.append(self._sample(own, seeds[part.start : part.stop], start, bar.update))
        return parts[0] if len(parts) == 1 else Weights.cat(parts)

    def _sample(
        self,
        condition: Condition,
        seeds: Sequence[int],
        first: int,
        advance: Callable[[int], object],
    ) -> Weights:
        padding = self.whitening.padding
        drawn = {
            s: torch.randn(padding.shape, generator=seeded("diffusion", s)) for s in set(seeds)
        }
        noise = torch.stack([drawn[s] for s in seeds]).to(self.whitening.mean)
        noise = noise.masked_fill(padding, 0)
        generators = [seeded("diffusion steps", s) for s in seeds]
        guided = Guidance(self.denoiser, self.guidance, self.null)
        memory = guided.read(condition if self.conditional else None)

        def predict(x: Tensor, time: Tensor) -> Tensor:
            output = guided.step(x.masked_fill(padding, 0), time, memory)
            return output.masked_fill(padding, 0)

        # The first bad step of each token, looked at once, after all steps.
        never = self.process.steps
        broken = torch.full(noise.shape[:2], never, device=noise.device)

        def watch(step: int, x: Tensor) -> None:
            bad = ~torch.isfinite(x).all(-1)
            broken.masked_fill_(bad & (broken == never), step)
            advance(len(x))

        latents = self.process.sample(predict, noise, generators, watch)
        step = int(broken.min())
        if step < never:
            row, token = (broken == step).nonzero()[0].tolist()
            raise WeightsError(
                f"sampling made NaN or infinity in step {step + 1} of {self.process.steps} "
                f"({self.process.sampler}), first in {self.codec.describe(token)} of network "
                f"{first + row}: train with a lower lr, or sample with more steps"
            )
        return self.from_latents(latents)

    # -- files ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """See `Generator.to_dict`; with the sampler and steps that `process.choose` chose last."""
        out = super().to_dict()
        out["init_args"] = {**out["init_args"], "process": self.process.to_dict()}
        return out

    @torch.no_grad()
    def memoriser(self, flat: Tensor) -> DiffusionGenerator:
        """The same codec and process with the closed-form minimiser: what it samples are copies.

        Args:
            flat: `[K, numel]`, training checkpoints.

        Returns:
            An unconditional generator of its own.
        """
        denoiser = {
            "name": "Minimiser",
            "points": len(flat),
            "process": self.process.to_dict(),
        }
        options = {**self.config, "codec": self.codec.to_dict(), "denoiser": denoiser}
        options |= {"process": self.process.to_dict(), "guidance": 1.0}
        made = type(self)(self.spec, NoCondition(), **options).to(self.device)
        own = {k: v for k, v in self.state_dict().items() if k in made.state_dict()}
        made.load_state_dict({**own, "denoiser.latents": self.to_latents(flat.to(self.device))})
        return made.eval()
