from __future__ import annotations

import pytest
import torch
from torch import nn

from hypergen.errors import SpecError, WeightsError
from hypergen.generators.diffusion import PCACodec
from hypergen.specs import FullSpec

SPEC = FullSpec(nn.Linear(5, 4))  # 24 numbers
DRAW = torch.Generator().manual_seed(0)
FEW = torch.randn(9, SPEC.numel, generator=DRAW)
MANY = torch.randn(200, SPEC.numel, generator=DRAW) * torch.linspace(0.1, 3, SPEC.numel) + 1


@pytest.mark.parametrize(("rows", "most"), [(FEW, 8), (MANY, 24)])
def test_all_components_lose_nothing_of_the_training_set(rows, most):
    codec = PCACodec(SPEC, most)
    codec.fit(rows)
    latents = codec.encode(rows)
    assert latents.shape == (len(rows), 1, most)
    assert torch.allclose(codec.decode(latents), rows, atol=1e-4)
    assert torch.allclose(codec.basis @ codec.basis.T, torch.eye(most), atol=1e-5)
    assert torch.allclose(latents[:, 0].var(0, correction=0), torch.ones(most), atol=1e-3)
    covariance = latents[:, 0].T @ latents[:, 0] / len(rows)
    assert torch.allclose(covariance, torch.eye(most), atol=1e-3)


def test_the_dual_problem_finds_the_same_components():
    wide = PCACodec(SPEC, 4)
    wide.fit(MANY[:20])  # fewer rows than numbers
    _, _, expected = torch.linalg.svd(MANY[:20] - MANY[:20].mean(0), full_matrices=False)
    cosine = (wide.basis * expected[:4]).sum(1).abs()
    assert torch.allclose(cosine, torch.ones(4), atol=1e-4)
    assert bool((wide.basis.gather(1, wide.basis.abs().argmax(1, keepdim=True)) > 0).all())


def test_a_share_of_the_variance_decides_their_number():
    codec = PCACodec(SPEC, 0.9, standardize=False)
    assert not codec.sized
    with pytest.raises(WeightsError, match="known after"):
        _ = codec.dim
    codec.fit(MANY)
    values = torch.linalg.svdvals(MANY - MANY.mean(0)).square()
    share = values.cumsum(0) / values.sum()
    assert codec.dim == int((share < 0.9).sum()) + 1
    assert codec.sized
    latents = codec.encode(MANY)[:, 0]
    kept = latents.var(0, correction=0).sum() / MANY.var(0, correction=0).sum()
    assert float(kept) == pytest.approx(float(share[codec.dim - 1]), abs=1e-4)


def test_what_cannot_be_says_so():
    with pytest.raises(SpecError, match="share below 1 or a whole number"):
        PCACodec(SPEC, 2.5)
    with pytest.raises(WeightsError, match=r"9 components are asked for, but .* span 8"):
        PCACodec(SPEC, 9).fit(FEW)
    with pytest.raises(WeightsError, match="all equal"):
        PCACodec(SPEC, 0.9).fit(FEW[:1].repeat(4, 1))
