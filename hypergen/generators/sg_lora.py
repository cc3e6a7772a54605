"""A conditional VAE of weights whose prior is guided by similar experts (SG-LoRA)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import SpecError, WeightsError
from hypergen._utils.seeding import generator as seeded
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.hyper.mlp import ResidualBlock
from hypergen.generators.library.base import DescribedExperts, check_mixing
from hypergen.generators.library.experts import ExpertDescriptions, Experts, top_softmax
from hypergen.generators.objectives import Mixture, Reconstruction
from hypergen.specs import Weights, WeightSpec

Gaussian = tuple[Tensor, Tensor]  # mean and log-variance, [B, latent] each


class SGLoRA(DescribedExperts):
    """Encoder q(z | weights, c), prior p(z | similar experts, c), decoder p(weights | z, c).

    Li et al., "Semantic-guided LoRA Parameters Generation", 2025, arXiv:2509.10535: the
    description of a task is compared with those of expert tasks; the softmax of the `top_k`
    largest cosines weighs the experts' semantics; from the mix follows the prior of a conditional
    VAE (Sohn, Lee and Yan, NeurIPS 2015) over LoRA weights, which is sampled for a new task.

    What differs: the prior and the decoder see the task's own condition beside the mix (the paper
    conditions on the mix); all networks of the zoo are training data and experts at once, and a
    network's own task is left out of its mix while training (new tasks have no expert either);
    nothing is specific to LoRA. The encoder's first and the decoder's last layer hold
    `hidden · numel` numbers each: this is for small targets or low ranks.

    Weights are normalised entry by entry by the mean and spread of the experts. Train with the
    objective `elbo` on a data module that has a zoo; other objectives see the decoded mean of the
    prior, and train prior and decoder alone.

    `forward` decodes the mean of the prior; `sample`, which `generate` uses, draws from it.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition; its pooled vector is used.
        experts: Names of the experts; given by `from_weights` or the data module.
        descriptions: Number of their descriptions; likewise.
        latent: Width of z.
        hidden: Width of the three networks.
        depth: Residual blocks of each.
        dropout: Dropout inside the blocks.
        top_k: Experts that are mixed; all when None.
        temperature: Divides the cosines.
        kl_weight: Factor of the KL divergence; 1 is the evidence lower bound.
        kl_steps: Training batches over which the factor grows from 0 to `kl_weight`.
        spread: Factor of the prior's standard deviation in `sample`; 0 draws its mean.
        floor: Smallest spread of an entry over the experts, relative to the median one.

    Raises:
        SpecError: A setting is out of range.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        experts: Sequence[str] = (),
        descriptions: int = 0,
        latent: int = 32,
        hidden: int = 256,
        depth: int = 1,
        dropout: float = 0.0,
        top_k: int | None = 8,
        temperature: float = 0.05,
        kl_weight: float = 1.0,
        kl_steps: int = 0,
        spread: float = 1.0,
        floor: float = 0.1,
    ) -> None:
        config = {
            "latent": latent,
            "hidden": hidden,
            "depth": depth,
            "dropout": dropout,
            "top_k": top_k,
            "temperature": temperature,
            "kl_weight": kl_weight,
            "kl_steps": kl_steps,
            "spread": spread,
            "floor": floor,
        }
        library = ExpertDescriptions(encoder.dim, experts, descriptions)
        super().__init__(spec, encoder, library, config)
        check_mixing(top_k, temperature)
        if min(kl_weight, kl_steps, spread, floor) < 0 or latent < 1:
            raise SpecError(
                "latent must be positive; kl_weight, kl_steps, spread, floor not negative"
            )
        self.latent, self.top_k, self.temperature = latent, top_k, temperature
        self.kl_weight, self.kl_steps = kl_weight, kl_steps
        self.spread, self.floor = spread, floor
        dim = encoder.dim

        def network(inputs: int) -> nn.Sequential:
            blocks = (ResidualBlock(hidden, dropout) for _ in range(depth))
            norm = nn.LayerNorm(hidden, elementwise_affine=False)
            return nn.Sequential(nn.Linear(inputs, hidden), *blocks, norm)

        self.condition_norm = nn.LayerNorm(dim)
        self.posterior_network = network(spec.numel + dim)
        self.posterior_head = nn.Linear(hidden, 2 * latent)
        self.prior_network = network(2 * dim)
        self.prior_head = nn.Linear(hidden, 2 * latent)
        self.decoder = network(latent + dim)
        self.head = nn.Linear(hidden, spec.numel)
        nn.init.zeros_(self.head.weight)  # the start is the mean of the experts
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", spec.initial(0))
        self.register_buffer("std", spec.per_entry("scale"))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.mean: Tensor
        self.std: Tensor
        self.steps: Tensor

    def fill(self, experts: Experts) -> None:
        """Takes the descriptions of these experts, and the mean and spread of their numbers.

        Raises:
            WeightsError: They are of another spec, or not finite.
        """
        if experts.weights.spec != self.spec:
            raise WeightsError("the experts are of another spec than this generator's")
        super().fill(experts)
        flat = experts.weights.check_finite().flat().detach()
        std = flat.std(0, correction=0)
        self.mean = flat.mean(0).to(self.mean)
        self.std = std.clamp(min=self.floor * float(std.median()) + 1e-12).to(self.std)

    # -- the three distributions ---------------------------------------------------------------

    def posterior(self, weights: Tensor, condition: Condition) -> Gaussian:
        """q(z | weights, c): mean and log-variance, `[B, latent]`, for weights `[B, numel]`."""
        normal = (weights - self.mean) / self.std
        inputs = torch.cat([normal, self.condition_norm(condition.pooled)], dim=-1)
        return _gaussian(self.posterior_head(self.posterior_network(inputs)))

    def prior(self, condition: Condition, without: Tensor | None = None) -> Gaussian:
        """p(z | similar experts, c): mean and log-variance, `[B, latent]`.

        Args:
            condition: `[B]` conditions.
            without: `[B, E]` bool, experts that a row must not see.
        """
        mixed = self.mix(condition, without) @ self.library.centres()
        inputs = torch.cat(
            [self.condition_norm(mixed), self.condition_norm(condition.pooled)], dim=-1
        )
        return _gaussian(self.prior_head(self.prior_network(inputs)))

    def mix(self, condition: Condition, without: Tensor | None = None) -> Tensor:
        """Weights of the experts in the prior, `[B, E]`: they sum to 1, all but `top_k` are 0."""
        similarity = self.library.similarity(condition.pooled)
        if without is not None:
            similarity = similarity.masked_fill(without, -torch.inf)
        return top_softmax(similarity, self.top_k, self.temperature)

    def decode(self, z: Tensor, condition: Condition) -> Weights:
        """Mean of p(weights | z, c) for z `[B, latent]`."""
        inputs = torch.cat([z, self.condition_norm(condition.pooled)], dim=-1)
        return self.spec.from_flat(self.mean + self.std * self.head(self.decoder(inputs)))

    # -- generating ----------------------------------------------------------------------------

    def forward(self, condition: Condition) -> Weights:
        """Decodes the mean of the prior for each row of the condition."""
        return self.decode(self.prior(condition)[0], condition)

    def sample(self, condition: Condition, seeds: Sequence[int]) -> Weights:
        """Draws z from the prior and decodes it; a row's noise depends on its seed alone."""
        mean, log_variance = self.prior(condition)
        noise = {s: torch.randn(self.latent, generator=seeded("sg_lora", s)) for s in set(seeds)}
        drawn = torch.stack([noise[s] for s in seeds]).to(mean)
        return self.decode(mean + self.spread * (0.5 * log_variance).exp() * drawn, condition)

    # -- training ------------------------------------------------------------------------------

    def loss(
        self, batch: Mapping[str, Any], objective: Callable[[Weights, Mapping[str, Any]], Tensor]
    ) -> Tensor:
        """Scalar loss of a batch.

        With `ELBO` (alone or in a mixture) the stored `weights` of the batch are encoded, and what
        is decoded from a draw of the posterior (its mean when not training) goes to the objective,
        with the weighted divergence under `kl`.
        """
        if not _has_elbo(objective):
            return super().loss(batch, objective)
        condition, without = batch["condition"], self.left_out(batch)
        prior = self.prior(condition, without)
        if "gather" in batch:
            gather = batch["gather"]
            condition, prior = condition[gather], (prior[0][gather], prior[1][gather])
        posterior = self.posterior(batch["weights"], condition)
        z: Tensor = posterior[0]
        weight: float | Tensor = self.kl_weight
        if self.training:
            z = z + (0.5 * posterior[1]).exp() * torch.randn_like(z)
            self.steps += 1
            weight = weight * (self.steps / max(1, self.kl_steps)).clamp(max=1)
        kl = weight * gaussian_kl(posterior, prior).mean()
        return objective(self.decode(z, condition), {**batch, "kl": kl})


class ELBO(Reconstruction):
    """The negative evidence lower bound of a generator with a posterior, for each entry.

    ½ · mean over entries of ((decoded - stored) / std)² + KL / numel: `numel` times this is the
    bound of a decoder with unit variance in normalised units, up to a constant (Kingma and
    Welling, arXiv:1312.6114). The generator brings the divergence, see `SGLoRA.loss`.

    Args:
        mean: `[numel]`, mean of the zoo.
        std: `[numel]`, standard deviation of the zoo.
        floor: Smallest standard deviation, relative to the median one.
    """

    def forward(self, weights: Weights, batch: Mapping[str, Any]) -> Tensor:
        """The bound; the batch also holds `kl`, the weighted divergence.

        Raises:
            SpecError: The generator has no posterior.
        """
        if "kl" not in batch:
            raise SpecError("the objective elbo needs a generator with a posterior, such as SGLoRA")
        error: Tensor = super().forward(weights, batch)
        return 0.5 * error + batch["kl"] / weights.spec.numel


def gaussian_kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q ‖ p) of diagonal Gaussians given by mean and log-variance `[B, D]`; `[B]`."""
    difference = (q[0] - p[0]).square() / p[1].exp()
    return 0.5 * (p[1] - q[1] + (q[1] - p[1]).exp() + difference - 1).sum(-1)


def _gaussian(output: Tensor) -> Gaussian:
    mean, log_variance = output.chunk(2, dim=-1)
    # Smoothly within ±6: a collapsed variance would make the divergence explode.
    return mean, 6 * F.softsign(log_variance / 6)


def _has_elbo(objective: object) -> bool:
    if isinstance(objective, Mixture):
        return any(_has_elbo(part) for part in objective.objectives)
    return isinstance(objective, ELBO)
