from __future__ import annotations

import pytest
import torch
from torch import nn

from hypergen.errors import SpecError, WeightsError
from hypergen.generators.diffusion import PCACodec, TokenCodec, WeightCodec
from hypergen.specs import FullSpec

SPEC = FullSpec(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)))
ROWS = torch.randn(9, SPEC.numel, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "made", [TokenCodec(SPEC, 7, "channel"), PCACodec(SPEC, 5), PCACodec(SPEC, 0.8)]
)
def test_a_codec_is_rebuilt_from_its_description(made):
    made.fit(ROWS)
    again = WeightCodec.from_dict(SPEC, made.to_dict())
    assert type(again) is type(made)
    again.load_state_dict(made.state_dict(), strict=True)
    assert bool(again.fitted)
    assert torch.equal(again.encode(ROWS), made.encode(ROWS))
    assert made.encode(ROWS).shape == (9, made.tokens, made.dim)
    assert made.mask.shape == (made.tokens, made.dim)
    assert made.positions.shape == (made.tokens, 3)


def test_what_is_fitted_stays():
    codec = TokenCodec(SPEC)
    codec.fit(ROWS)
    before = codec.mean.clone()
    codec.fit(ROWS + 1)
    assert torch.equal(codec.mean, before)


def test_what_does_not_fit_says_so():
    with pytest.raises(SpecError, match=r"no codec 'TokenCodek'. Did you mean 'TokenCodec'"):
        WeightCodec.from_dict(SPEC, "TokenCodek")
    with pytest.raises(SpecError, match=r"codec TokenCodec: .*unexpected keyword argument 'width'"):
        WeightCodec.from_dict(SPEC, {"name": "TokenCodec", "width": 3})
    codec = TokenCodec(SPEC)
    with pytest.raises(SpecError, match="TokenCodec has nothing to train"):
        codec.loss(ROWS)
    with pytest.raises(WeightsError, match="no checkpoint to fit"):
        codec.fit(ROWS[:0])
    with pytest.raises(WeightsError, match="training checkpoint 3 contains NaN"):
        codec.fit(ROWS.index_fill(0, torch.tensor(3), torch.nan))
    with pytest.raises(WeightsError, match=r"expected \[B, 39\]"):
        codec.encode(ROWS[:, :-1])
