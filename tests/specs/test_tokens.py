"""Tokens: any cut of any spec, and exactly back."""

from __future__ import annotations

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen.errors import SpecError, WeightsError
from hypergen.specs import FullSpec, LoRASpec, Slot, TokenLayout, WeightSpec

shapes = st.lists(st.lists(st.integers(1, 5), max_size=3).map(tuple), min_size=1, max_size=5)


@settings(deadline=None, max_examples=100)
@given(shapes, st.integers(1, 9), st.sampled_from(["flat", "slot", "channel"]))
def test_tokens_hold_each_number_once(shapes, size, by):
    spec = WeightSpec(Slot(f"s{i}", shape, "other") for i, shape in enumerate(shapes))
    layout = TokenLayout(spec, size, by)
    flat = torch.randn(2, spec.numel)
    tokens = layout.encode(flat)
    assert tokens.shape == (2, len(layout), size)
    assert torch.equal(layout.decode(tokens), flat)
    assert int(layout.mask.sum()) == spec.numel
    assert bool((tokens[:, ~layout.mask] == 0).all())
    # What stands under the mask does not matter.
    assert torch.equal(layout.decode(tokens.masked_fill(~layout.mask, 7.0)), flat)
    # Positions: the slot of each token is that of its first number.
    owner = torch.arange(len(spec)).repeat_interleave(torch.tensor([s.numel for s in spec]))
    assert torch.equal(owner[layout.index[:, 0]], layout.positions[:, 1])
    if by != "flat":
        own = owner[layout.index]
        assert bool(((own == own[:, :1]) | ~layout.mask).all())


def test_channels_start_tokens_of_their_own():
    spec = FullSpec(tiny.model("mlp"), "fc1.*")  # weight [12, 8], bias [12]
    layout = TokenLayout(spec, 5, "channel")
    assert len(layout) == 12 * 2 + 3
    assert layout.mask[:2].sum(1).tolist() == [5, 3]
    assert layout.positions[:4].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3]]


def test_layers_are_numbered_from_one():
    layout = TokenLayout(LoRASpec(tiny.model("llama"), ["q_proj"], r=2), 16)
    assert sorted(set(layout.positions[:, 0].tolist())) == [1, 2]


def test_tokens_are_differentiable():
    spec = FullSpec(tiny.model("mlp"))
    layout = TokenLayout(spec, 7)
    tokens = torch.randn(2, len(layout), 7, requires_grad=True)
    layout.decode(tokens).sum().backward()
    assert torch.equal(tokens.grad[0].bool(), layout.mask)


def test_wrong_arguments_are_told():
    spec = FullSpec(tiny.model("mlp"))
    with pytest.raises(SpecError, match="must be positive, not 0"):
        TokenLayout(spec, 0)
    with pytest.raises(SpecError, match="not 'rows'"):
        TokenLayout(spec, 4, "rows")
    layout = TokenLayout(spec, 4)
    with pytest.raises(WeightsError, match=f"expected \\[B, {spec.numel}\\]"):
        layout.encode(torch.zeros(1, 3))
    with pytest.raises(WeightsError, match=r"expected \[B, \d+, 4\], got \[1, 2, 4\]"):
        layout.decode(torch.zeros(1, 2, 4))
