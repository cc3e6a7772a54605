"""Networks that need no generator: what samples must beat in accuracy and novelty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergen._utils.seeding import generator as seeded
from hypergen.evaluation.audit.records import Networks
from hypergen.generators.diffusion.flow_matching import FlowMatching
from hypergen.generators.diffusion.minimiser import Minimiser
from hypergen.specs import WeightSpec

NOISE = (0.01, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0)  # of each slot's spread over the zoo
AVERAGED = 16
LABELS = {
    **{f"noise_{size:g}": f"noise of {size:g} around a checkpoint" for size in NOISE},
    "average": f"mean of {AVERAGED} checkpoints",
    "interpolation": "between two checkpoints",
    "gaussian": "Gaussian of every number",
    "nearest": "copy of the nearest condition",
    "merge": "softmax-weighted merge",
    "autoencoder": "autoencoder of a checkpoint",
    "minimiser": "perfect memoriser",
}

_MEMORISER_STEPS = 20


@dataclass(frozen=True)
class Baseline:
    """Some networks of one baseline.

    Attributes:
        kind: Key of `LABELS`; with `"_canonical"` at its end, made of networks whose hidden units
            were matched first.
        flat: `[n, numel]`.
        tasks: `[n]`, the task that each is meant for.
    """

    kind: str
    flat: Tensor
    tasks: Tensor

    @property
    def label(self) -> str:
        """Words for tables."""
        kind = self.kind.removesuffix("_canonical")
        return LABELS[kind] + (", units matched" if kind != self.kind else "")


def make_baselines(
    spec: WeightSpec,
    training: Networks,
    *,
    count: int,
    seed: int = 0,
    similarity: Tensor | None = None,
    tasks: Tensor | None = None,
    canonical: Callable[[Tensor], Tensor] | None = None,
    reconstruct: Callable[[Tensor], Tensor] | None = None,
) -> list[Baseline]:
    """Makes all baselines.

    Without conditions, checkpoints are drawn at random. With conditions, those nearest to each
    condition are used: what can be had for a task by looking its description up.

    Args:
        spec: The weights.
        training: The training networks; never changed.
        count: Networks of each baseline, without conditions.
        seed: Seed of the draws.
        similarity: `[C, T]`, likeness of C conditions to those of the training networks; `count`
            is C then.
        tasks: `[C]` tasks of the conditions.
        canonical: Brings weights to a canonical form of the same functions. Mixtures are then
            made of these too, since networks mix better after their units are matched.
        reconstruct: An autoencoder, `[N, numel]` → `[N, numel]`.
    """
    flat = training.flat
    made: list[Baseline] = []
    random = seeded("audit baselines", seed)
    if similarity is None:
        # Each row: an anchor, and others to mix with.
        order = torch.rand(count, len(flat), generator=random).argsort(1)
        nearest, logits = order[:, :AVERAGED], None
    else:
        count = len(similarity)
        top = similarity.topk(min(AVERAGED, len(flat)), dim=1)
        nearest, logits = top.indices, top.values
    anchor = nearest[:, 0]
    own = training.tasks[anchor] if tasks is None else tasks

    def add(kind: str, weights: Tensor) -> None:
        made.append(Baseline(kind, weights, own))

    spread = _spread(spec, flat)
    for size in NOISE:
        noise = torch.randn(count, flat.shape[1], generator=random)
        add(f"noise_{size:g}", flat[anchor] + size * spread * noise)
    if similarity is not None:
        add("nearest", flat[anchor])
    forms = {"": flat} | ({} if canonical is None else {"_canonical": canonical(flat)})
    draws = torch.rand(count, 1, generator=random)
    if logits is None:
        weights = torch.randn(nearest.shape, generator=random).softmax(1)
    else:
        # Standardised, so that the sharpness does not depend on the encoder's scale.
        scale = logits.std(1, keepdim=True).clamp(min=1e-12) if logits.shape[1] > 1 else 1.0
        weights = ((logits - logits.mean(1, keepdim=True)) / scale).softmax(1)
    partner = nearest[:, 1 if nearest.shape[1] > 1 else 0]
    for suffix, form in forms.items():
        # Sums over gathered copies: the checkpoints themselves are left as they are.
        add(f"average{suffix}", mix(form, nearest, torch.full(nearest.shape, 1 / nearest.shape[1])))
        add(f"interpolation{suffix}", form[anchor] * draws + form[partner] * (1 - draws))
        add(f"merge{suffix}", mix(form, nearest, weights))
        noise = torch.randn(count, flat.shape[1], generator=random)
        add(f"gaussian{suffix}", form.mean(0) + form.std(0) * noise)
    if reconstruct is not None:
        add("autoencoder", reconstruct(flat[anchor].clone()).detach())
    if similarity is None:
        # With conditions, it gives back the checkpoint of the nearest one, which is there already.
        found = memorise(spec, flat, count, seed)
        remembered = torch.cdist(found, flat).argmin(1)
        made.append(Baseline("minimiser", found, training.tasks[remembered]))
    return made


def mix(flat: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows.

    Args:
        flat: `[T, numel]`, read only.
        index: `[C, K]`, which rows.
        weights: `[C, K]`.

    Returns:
        `[C, numel]`.
    """
    dense = torch.zeros(len(index), len(flat)).scatter_add_(1, index, weights.float())
    return dense @ flat


def memorise(spec: WeightSpec, flat: Tensor, count: int, seed: int) -> Tensor:
    """Samples of the closed-form minimiser of the flow-matching loss: the perfect memoriser.

    Args:
        spec: The weights.
        flat: `[T, numel]` training networks.
        count: Number of samples.
        seed: Seed of the noise.
    """
    mean, spread = flat.mean(0), _spread(spec, flat)
    process = FlowMatching(sampler="heun", steps=_MEMORISER_STEPS)
    denoiser = Minimiser.of(((flat - mean) / spread)[:, None], process)
    generators = [seeded("audit memoriser", seed, i) for i in range(count)]
    noise = torch.stack([torch.randn(1, flat.shape[1], generator=g) for g in generators])
    with torch.no_grad():
        return process.sample(denoiser, noise, generators)[:, 0] * spread + mean


def _spread(spec: WeightSpec, flat: Tensor) -> Tensor:
    """`[numel]`, root mean square deviation of each slot over the networks."""
    deviation = (flat - flat.mean(0)).square().mean(0)
    sizes = [slot.numel for slot in spec.slots]
    means = torch.stack([part.mean() for part in deviation.split(sizes)])
    total = deviation.mean().sqrt().clamp(min=1e-12)
    spread = means.sqrt()
    # A slot that no training changed still gets some noise.
    spread = torch.where(spread > 1e-6 * total, spread, 1e-6 * total)
    return spread.repeat_interleave(torch.tensor(sizes))
