"""Noise on latents, posteriors and the contrastive term."""

from __future__ import annotations

import pytest
import torch

from hypergen.generators.diffusion.latents import gaussian, noisy, nt_xent, standard_kl


def test_noise_is_in_units_of_the_spread_of_each_dimension():
    draw = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.1, 1.0, 20.0])
    latents = 5 + scale * torch.randn(400, 10, 3, generator=draw)
    torch.manual_seed(0)
    change = (noisy(latents, 0.2) - latents).flatten(0, 1).std(0)
    assert torch.allclose(change / scale, torch.full((3,), 0.2), rtol=0.05)
    assert torch.equal(noisy(latents, 0.0), latents)


def test_larger_latents_gain_nothing_against_the_noise():
    """The ratio of latents to noise has no gradient along the latents themselves."""
    latents = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.manual_seed(1)
    noise = noisy(latents, 0.3) - latents
    ratio = noise.square().sum() / latents.var((0, 1), correction=0).mean()
    (along,) = torch.autograd.grad(ratio, latents)
    centred = (latents - latents.mean((0, 1))).detach()
    assert float((along * centred).sum()) == pytest.approx(0, abs=1e-4)


def test_the_divergence_is_that_of_torch():
    mean, log_variance = gaussian(torch.randn(6, 2, 8, generator=torch.Generator().manual_seed(0)))
    own = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    one = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(own, one).mean()
    assert torch.allclose(standard_kl(mean, log_variance), expected, rtol=1e-4)
    extreme = gaussian(torch.full((1, 1, 2), 1e6))[1]
    assert float(extreme) == pytest.approx(6, rel=1e-3)


def test_contrast_is_the_cross_entropy_of_finding_the_other_view():
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 7, generator=draw), torch.randn(5, 7, generator=draw)
    rows = torch.nn.functional.normalize(torch.cat([a, b]), dim=1)
    terms = []
    for i in range(10):
        cosine = (rows[i] @ rows.T / 0.5).tolist()
        others = torch.tensor([c for j, c in enumerate(cosine) if j != i])
        terms.append(others.logsumexp(0) - cosine[(i + 5) % 10])
    assert torch.allclose(nt_xent(a, b, 0.5), torch.stack(terms).mean(), rtol=1e-5)
    assert float(nt_xent(a, a, 0.5)) < float(nt_xent(a, a.roll(1, 0), 0.5))
    assert float(nt_xent(a[:1], b[:1], 0.5)) == 0
