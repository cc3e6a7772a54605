from __future__ import annotations

import pytest
import torch

from hypergen.errors import SpecError
from hypergen.generators.diffusion.whitening import Whitening

MASK = torch.tensor([[True, True, True], [True, True, False]])
DRAW = torch.Generator().manual_seed(0)
LATENTS = 3 + torch.randn(40, 2, 3, generator=DRAW) * torch.tensor([[1.0, 5, 2], [0.1, 1, 9]])
LATENTS[:, 1, 2] = 0


def test_latents_get_mean_zero_and_variance_one_in_their_scope():
    for scope in ("entry", "global"):
        net = Whitening(MASK, scope)
        net.fit(LATENTS.split(7))
        white = net(LATENTS)
        real = white[:, MASK]
        moments = real if scope == "entry" else real.flatten()[:, None]
        assert torch.allclose(moments.mean(0), torch.zeros(moments.shape[1]), atol=1e-5)
        assert torch.allclose(moments.var(0, correction=0), torch.ones(moments.shape[1]), atol=1e-4)
        assert not white[:, ~MASK].any()
        assert torch.allclose(net.inverse(white + 4 * ~MASK), LATENTS, atol=1e-4)


def test_chunks_do_not_matter():
    whole, parts = Whitening(MASK), Whitening(MASK)
    whole.fit([LATENTS])
    parts.fit(LATENTS.split(1))
    assert torch.allclose(whole.mean, parts.mean, atol=1e-6)
    assert torch.allclose(whole.std, parts.std, atol=1e-6)


def test_without_a_fit_or_a_scope_it_changes_nothing():
    net = Whitening(MASK, "none")
    net.fit([LATENTS])
    assert torch.equal(net(LATENTS), LATENTS)
    assert torch.equal(Whitening(MASK)(LATENTS), LATENTS)
    with pytest.raises(SpecError, match="entry, global or none"):
        Whitening(MASK, "full")


def test_latents_that_never_change_stay_finite():
    net = Whitening(MASK)
    net.fit([LATENTS[:1].repeat(5, 1, 1)])
    assert float(net(LATENTS).abs().max()) < 100
