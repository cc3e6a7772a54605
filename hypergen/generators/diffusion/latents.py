"""What the trained codecs do to their latents: noise, posteriors, contrast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def noisy(latents: Tensor, level: float) -> Tensor:
    """Adds noise of `level` times the latents' own spread over batch and tokens.

    Relative, so that making all latents larger gains nothing against the noise.

    Args:
        latents: `[B, T, D]`.
        level: Standard deviation of the noise, in units of the spread of each dimension.
    """
    if not level:
        return latents
    spread = (latents.flatten(0, 1).var(0, correction=0) + 1e-12).sqrt()
    return latents + level * spread * torch.randn_like(latents)


def gaussian(output: Tensor) -> tuple[Tensor, Tensor]:
    """Halves of the last axis as mean and log-variance, the latter smoothly within ±6."""
    mean, log_variance = output.chunk(2, dim=-1)
    # A collapsed variance would make the divergence explode.
    return mean, 6 * F.softsign(log_variance / 6)


def standard_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, 1)), averaged over all numbers (Kingma and Welling, 2013)."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).mean()


def drawn(output: Tensor, kl_weight: float) -> tuple[Tensor, Tensor, Tensor | float]:
    """Latents of a training step: drawn where they have a distribution, which costs a divergence.

    Args:
        output: `[B, T, D]`, or `[B, T, 2 D]` (see `gaussian`) with a `kl_weight`.
        kl_weight: Factor of the divergence from a standard normal distribution; 0 for latents
            without a distribution.

    Returns:
        Latents `[B, T, D]`, their mean, and the weighted divergence.
    """
    if not kl_weight:
        return output, output, 0.0
    mean, log_variance = gaussian(output)
    latents = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    return latents, mean, kl_weight * standard_kl(mean, log_variance)


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy between two views of each row.

    Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR),
    ICML 2020, arXiv:2002.05709: a row's other view is to be told from all other rows of both views
    by the cosine. 0 for a single row, which has nothing to be told from.

    Args:
        a: `[B, D]`, one view.
        b: `[B, D]`, the other.
        temperature: Divides the cosines.
    """
    rows = F.normalize(torch.cat([a, b]), dim=-1)
    logits = rows @ rows.T / temperature
    own = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    partner = torch.arange(len(rows), device=rows.device).roll(len(a))
    return F.cross_entropy(logits.masked_fill(own, -torch.inf), partner)
