from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hypergen.errors import SpecError
from hypergen.generators.diffusion import TokenCodec
from hypergen.specs import FullSpec

SPEC = FullSpec(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.LayerNorm(3)))
DRAW = torch.Generator().manual_seed(0)
ROWS = 2 + 3 * torch.randn(50, SPEC.numel, generator=DRAW) * torch.rand(SPEC.numel, generator=DRAW)


@given(
    size=st.integers(1, 60),
    by=st.sampled_from(["flat", "slot", "channel"]),
    normalize=st.sampled_from(["entry", "slot", "global", "none"]),
)
def test_nothing_is_lost(size, by, normalize):
    codec = TokenCodec(SPEC, size, by, normalize)
    codec.fit(ROWS)
    tokens = codec.encode(ROWS)
    assert not tokens[:, ~codec.mask].any()
    back = codec.decode(tokens + 5 * ~codec.mask)  # what stands under the mask does not count
    if normalize == "none":
        assert torch.equal(back, ROWS)
    assert torch.allclose(back, ROWS, rtol=1e-5, atol=1e-5)


def test_numbers_are_normalised_in_their_scope():
    entry, slot, whole = (TokenCodec(SPEC, 64, "slot", n, 0) for n in ("entry", "slot", "global"))
    for codec in (entry, slot, whole):
        codec.fit(ROWS)
    tokens = entry.encode(ROWS)[:, entry.mask]
    assert torch.allclose(tokens.mean(0), torch.zeros(SPEC.numel), atol=1e-5)
    assert torch.allclose(tokens.std(0, correction=0), torch.ones(SPEC.numel), atol=1e-4)
    for token, real in zip(slot.encode(ROWS).unbind(1), slot.mask, strict=True):
        own = token[:, real]
        assert float(own.mean()) == pytest.approx(0, abs=1e-5)
        assert float(own.std(correction=0)) == pytest.approx(1, abs=1e-4)
    tokens = whole.encode(ROWS)[:, whole.mask]
    assert float(tokens.mean()) == pytest.approx(0, abs=1e-5)
    assert float(tokens.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_entries_that_never_change_are_not_blown_up():
    rows = ROWS.clone()
    rows[:, :5] = 1.5
    codec = TokenCodec(SPEC)
    codec.fit(rows)
    assert torch.allclose(codec.decode(codec.encode(rows)), rows, atol=1e-5)
    moved = codec.encode(rows + 0.01)
    assert float(moved.abs().max()) < 20
    codec = TokenCodec(SPEC)
    codec.fit(rows[:1].repeat(3, 1))  # all checkpoints are equal
    assert float(codec.encode(rows).abs().max()) < 1e3


def test_messages_name_the_slot():
    codec = TokenCodec(SPEC, 8)
    token = next(i for i, p in enumerate(codec.positions.tolist()) if p[2] == 1)
    assert codec.describe(token) == "token 1 of slot '0.weight'"
    with pytest.raises(SpecError, match="by entry, slot, global or none"):
        TokenCodec(SPEC, normalize="row")
    with pytest.raises(SpecError, match="floor"):
        TokenCodec(SPEC, floor=-1)
