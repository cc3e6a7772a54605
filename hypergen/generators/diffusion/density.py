"""KDEGenerator: weights drawn from a kernel density estimate over embeddings of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from hypergen._utils.errors import ConditionError, WeightsError
from hypergen.conditions import Condition, ConditionEncoder, NoCondition
from hypergen.generators.base import Generator
from hypergen.generators.diffusion.anchors import Anchors, anchors_of
from hypergen.generators.diffusion.codec import WeightCodec
from hypergen.generators.diffusion.denoising import Denoising, is_denoising
from hypergen.generators.diffusion.kernels import Joint, Rule, check_options, draw, kernel_width
from hypergen.generators.library.experts import top_softmax
from hypergen.generators.objectives import Reconstruction
from hypergen.specs import Weights, WeightSpec

if TYPE_CHECKING:
    from typing_extensions import Self

_ROWS = 256  # checkpoints that are encoded, or samples that are decoded, at a time


class KDEGenerator(Generator):
    """A codec, and a Gaussian kernel on the latents of each training checkpoint.

    Schürholt, Mahoney and Borth, "Towards Scalable and Versatile Weight Space Learning" (SANE),
    ICML 2024, arXiv:2406.09997, and Schürholt et al., "Hyper-Representations as Generative Models",
    NeurIPS 2022, arXiv:2209.14733: a sample is the latents of an anchor (a training checkpoint)
    plus noise, decoded. Anchors are all checkpoints or the best of them and, with `nearest`, those
    whose conditions are most similar to the one given.

    - `joint="network"`: one anchor for all of a sample, a kernel density estimate proper.
    - `"token"`: an anchor of its own for each token.
    - `"entry"`: for each number, the product of one-dimensional estimates ("individual" in SANE).

    Each row's draw depends on its own seed alone; within a row, every number has noise of its own.
    `refine` draws many, scores them and keeps the best (SANE's subsampling and bootstrapping).

    Training minimises the codec's own loss, with the objective `denoising` or `reconstruction`;
    other objectives see the rebuilt weights. The embeddings are taken from the training checkpoints
    (those of `prepare`, or `fill`) when they are next needed after a step of training: by `sample`,
    or by `save_pretrained`, which stores them.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition; `NoCondition` for none. With `nearest` it must
            be frozen, since conditions are stored.
        codec: Weights ⇄ latents: name of a `WeightCodec`, or `{"name": …, **options}`.
        bandwidth: Standard deviation of the kernels in units of each latent's spread over the
            anchors, or a rule: `"scott"` or `"silverman"` (of as many dimensions as are drawn
            jointly, so close to 1 for whole networks).
        joint: What shares an anchor, see above.
        metric: Metric that checkpoints are chosen by, such as `"val.accuracy"`; needed for `best`
            below 1.
        best: Share of the training checkpoints that are anchors, the best by `metric`.
        order: Whether `"high"` or `"low"` values of the metric are best.
        most: Most anchors, evenly spaced among those chosen; all when None.
        nearest: Anchors that a condition chooses; all, whatever the condition, when None.
        temperature: Divides the cosines of these anchors to the condition.
        anchors: Number of anchors; kept with the generator, not chosen.

    Raises:
        SpecError: A setting is unknown or out of range.
        ConditionError: `nearest` without a condition, or with an encoder that is trained.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        codec: str | dict[str, Any] = "SequenceCodec",
        bandwidth: float | Rule = 0.2,
        joint: Joint = "network",
        metric: str | None = None,
        best: float = 1.0,
        order: Literal["high", "low"] = "high",
        most: int | None = None,
        nearest: int | None = None,
        temperature: float = 0.05,
        anchors: int = 0,
    ) -> None:
        config = {
            "codec": codec,
            "bandwidth": bandwidth,
            "joint": joint,
            "metric": metric,
            "best": best,
            "order": order,
            "most": most,
            "nearest": nearest,
            "temperature": temperature,
            "anchors": anchors,
        }
        super().__init__(spec, encoder, config)
        check_options(bandwidth, joint, metric, best, order, most, nearest, temperature)
        if nearest is not None and isinstance(encoder, NoCondition):
            raise ConditionError("nearest chooses anchors by their condition, and there is none")
        if nearest is not None and any(p.requires_grad for p in encoder.parameters()):
            raise ConditionError(
                f"KDEGenerator compares conditions with stored ones, and {type(encoder).__name__} "
                "is trained: freeze it, or take a frozen encoder"
            )
        self.bandwidth, self.joint, self.nearest = bandwidth, joint, nearest
        self.temperature = temperature
        self.codec = WeightCodec.from_dict(spec, codec)
        self.register_buffer("collected", torch.tensor(False))
        self.collected: Tensor
        self.embeddings: Tensor
        self.spread: Tensor
        self.conditions: Tensor
        if self.codec.sized:
            self._resize(anchors)
        self._rows: Callable[[], Tensor] | None = None  # the anchors' weights

    @property
    def device(self) -> torch.device:
        """Device of the buffers: there may be no parameters."""
        return self.collected.device

    def _resize(self, anchors: int) -> None:
        shape, device = (self.codec.tokens, self.codec.dim), self.device
        described = anchors if self.nearest is not None else 0
        self.register_buffer("embeddings", torch.zeros(anchors, *shape, device=device))
        self.register_buffer("spread", torch.zeros(shape, device=device))
        self.register_buffer("conditions", torch.zeros(described, self.encoder.dim, device=device))
        self.config["anchors"] = anchors

    # -- the anchors ---------------------------------------------------------------------------

    @classmethod
    def from_weights(
        cls,
        weights: Weights,
        encoder: ConditionEncoder | None = None,
        *,
        conditions: Tensor | None = None,
        scores: Tensor | None = None,
        **options: Any,
    ) -> Self:
        """Builds a generator on checkpoints, its codec fitted but not trained.

        Args:
            weights: `N` checkpoints.
            encoder: The encoder; none without conditions.
            conditions: `[N, E]`, a pooled condition of each, for `nearest`.
            scores: `[N]`, a metric of each, for `best`.
            **options: Further arguments of the constructor.
        """
        made = cls(weights.spec, NoCondition() if encoder is None else encoder, **options)
        flat = weights.check_finite().flat().detach()
        made.fill(Anchors(lambda: flat, conditions, scores))
        return made.eval()

    def fill(self, anchors: Anchors) -> None:
        """Takes these checkpoints: fits the codec unless it is fitted, and chooses the anchors.

        Raises:
            ConditionError: `nearest` asks for conditions of another number or width.
            WeightsError: `best` asks for scores, or all of them are NaN.
        """
        flat = anchors.rows()
        self.codec.fit(flat.to(self.device))
        self.config["codec"] = self.codec.to_dict()
        options = self.config
        chosen = anchors.choose(len(flat), options["best"], options["order"], options["most"])
        self._rows = lambda: anchors.rows()[chosen]
        self._resize(len(chosen))
        if self.nearest is not None:
            if anchors.conditions is None or len(anchors.conditions) != len(flat):
                raise ConditionError("nearest needs a condition for each training checkpoint")
            self.conditions.copy_(anchors.conditions[chosen])
        self.collected.fill_(False)

    def prepare(self, data: Any) -> None:
        """Takes the training checkpoints of a data module; what is collected already stays.

        Args:
            data: A zoo's data module, see `anchors_of`.

        Raises:
            SpecError: It has no checkpoints, or not the metric.
            ConditionError: It has no conditions, and `nearest` needs them.
        """
        anchors = anchors_of(data, self.config["metric"], self.nearest is not None)
        if not bool(self.collected):
            self.fill(anchors)

    @torch.no_grad()
    def collect(self) -> None:
        """Encodes the anchors, unless that was done since the last step of training.

        Raises:
            WeightsError: There are none.
        """
        if bool(self.collected):
            return
        if self._rows is None:
            raise WeightsError(
                "the generator holds no embeddings: call prepare(data) or fill(anchors) first"
            )
        parts = [self.codec.encode(part.to(self.device)) for part in self._rows().split(_ROWS)]
        self.embeddings.copy_(torch.cat(parts))
        self.spread.copy_(self.embeddings.std(0, correction=0))
        self.collected.fill_(True)

    def anchor_weights(self, condition: Condition) -> Tensor:
        """Probability of each anchor, `[B, N]`, given a condition."""
        count = len(self.embeddings)
        if self.nearest is None:
            return self.embeddings.new_full((len(condition), count), 1 / count)
        a, b = (
            torch.nn.functional.normalize(x, dim=-1) for x in (condition.pooled, self.conditions)
        )
        return top_softmax(a @ b.T, self.nearest, self.temperature)

    # -- sampling ------------------------------------------------------------------------------

    def forward(self, condition: Condition) -> Weights:
        """The sample of seed 0, for each row of the condition."""
        return self.sample(condition, [0] * len(condition))

    def sample(self, condition: Condition, seeds: Sequence[int]) -> Weights:
        """Draws an anchor and noise for each row by the row's own seed, and decodes their sum.

        Raises:
            WeightsError: There are no embeddings.
        """
        self.collect()
        latents = self._draw(self.embeddings, self.spread, self.anchor_weights(condition), seeds)
        return self._decode(latents)

    def _draw(
        self, embeddings: Tensor, spread: Tensor, probability: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        count = len(embeddings)
        if self.nearest is not None and embeddings is self.embeddings:  # else they are candidates
            count = min(count, self.nearest)
        centres, noise, dimensions = draw(embeddings, probability, seeds, self.joint)
        width = kernel_width(self.bandwidth, count, dimensions)
        return centres + width * spread * noise * self.codec.mask.to(noise.device)

    def _decode(self, latents: Tensor) -> Weights:
        return self.spec.from_flat(
            torch.cat([self.codec.decode(part) for part in latents.split(_ROWS)])
        )

    @torch.no_grad()
    def refine(
        self,
        score: Callable[[Weights], Tensor],
        n: int = 1,
        *,
        condition: Condition | None = None,
        draws: int = 64,
        rounds: int = 1,
        keep: int | None = None,
        seed: int = 0,
    ) -> Weights:
        """Draws candidates, scores them and returns the best; more rounds draw around the best.

        SANE's subsampling (one round) and bootstrapping (several): after each round the best `keep`
        candidates, of this and the rounds before, are the anchors of the next.

        Args:
            score: Networks → `[B]`, higher is better, such as the accuracy on validation samples.
            n: Networks to return, the best of all rounds.
            condition: `[1]`, what to condition on; nothing when not given.
            draws: Candidates of a round.
            rounds: Number of rounds.
            keep: Anchors of the later rounds; a quarter of `draws` when not given.
            seed: Seed of the draws.

        Returns:
            `n` networks from best to worst, their scores as `expected_gain`.

        Raises:
            ConditionError: A condition of several rows, or a count out of range.
        """
        keep = max(2, draws // 4) if keep is None else keep
        if condition is not None and len(condition) != 1:
            raise ConditionError(f"refine takes one condition, not {len(condition)}")
        # One anchor has no spread: all candidates of the next round would be copies of it.
        if not (1 <= n <= draws and rounds >= 1 and keep >= 1 + (rounds > 1)):
            raise ConditionError(
                "refine needs 1 <= n <= draws, a positive number of rounds, and a positive keep (2 "
                "at least for several rounds)"
            )
        self.collect()
        if condition is None:
            zero = torch.zeros(1, 1, self.encoder.dim, device=self.device)
            condition = Condition.from_tokens(zero)
        anchors, spread = self.embeddings, self.spread
        probability = self.anchor_weights(condition).expand(draws, -1)
        best: tuple[Tensor, Tensor] | None = None  # scores and latents
        for number in range(rounds):
            seeds = range(seed + number * draws, seed + (number + 1) * draws)
            latents = self._draw(anchors, spread, probability, seeds)
            # Not a number would be sorted before all others.
            values = score(self._decode(latents)).to(self.device).nan_to_num(nan=-torch.inf)
            if best is not None:
                values, latents = torch.cat([best[0], values]), torch.cat([best[1], latents])
            top = values.argsort(descending=True, stable=True)[: max(n, keep)]
            best = values[top], latents[top]
            anchors = best[1][:keep]
            spread = anchors.std(0, correction=0)
            probability = anchors.new_full((draws, len(anchors)), 1 / len(anchors))
        assert best is not None
        weights = self._decode(best[1][:n])
        weights.expected_gain = best[0][:n]
        return weights

    # -- training and files --------------------------------------------------------------------

    def loss(self, batch: Mapping[str, Any], objective: Any) -> Tensor:
        """Scalar loss of the codec on `weights` `[B, numel]`.

        When not training, noise is the same at every call.
        """
        flat = batch["weights"].to(self.device)
        if self.training:
            self.collected.fill_(False)  # the codec is about to change
        if not isinstance(objective, Denoising) and type(objective) is not Reconstruction:
            rebuilt = self.spec.from_flat(self.codec.decode(self.codec.encode(flat)))
            own = {"denoising": self._codec_loss(flat)} if is_denoising(objective) else {}
            total: Tensor = objective(rebuilt, {**batch, **own})
            return total
        return self._codec_loss(flat)

    def _codec_loss(self, flat: Tensor) -> Tensor:
        return self.codec.loss(flat) if self.training else self.codec.steady_loss(flat)

    def save_pretrained(self, folder: Any, dtype: torch.dtype | None = None) -> Any:
        """Writes the generator with its embeddings, see `Generator.save_pretrained`.

        Raises:
            WeightsError: There are no embeddings, or something is not finite.
        """
        self.collect()
        return super().save_pretrained(folder, dtype)

    def load_tensors(self, state: Mapping[str, Tensor], origin: str = "the state dict") -> None:
        """Loads every tensor, after making room for the embeddings of the state.

        Raises:
            RunError: A tensor lacks, is left over or does not fit.
        """
        found = state.get("embeddings")
        if found is not None and found.dim() == 3 and len(found) != self.config["anchors"]:
            self._resize(len(found))
        super().load_tensors(state, origin)
