"""The selective scan against its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen.generators.diffusion import selective_scan as module
from hypergen.generators.diffusion.selective_scan import scan, selective_scan


def stepwise(x, decay, read_in, read_out):
    """The recurrence as it is written, one step after the other."""
    state = x.new_zeros(x.shape[0], x.shape[2], read_in.shape[-1], x.shape[-1])
    out = []
    for t in range(x.shape[1]):
        new = torch.einsum("bn,bhp->bhnp", read_in[:, t], x[:, t])
        state = decay[:, t].exp()[..., None, None] * state + new
        out.append(torch.einsum("bn,bhnp->bhp", read_out[:, t], state))
    return torch.stack(out, 1)


def inputs(length, heads=2, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=dtype)  # noqa: E731
    return (
        draw(3, length, heads, 4),
        -draw(3, length, heads).abs(),
        draw(3, length, 5),
        draw(3, length, 5),
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 23), st.integers(1, 9), st.integers(0, 10_000))
def test_any_length_and_chunk_equals_the_recurrence(length, chunk, seed):
    parts = inputs(length, seed=seed)
    torch.testing.assert_close(selective_scan(*parts, chunk=chunk), stepwise(*parts))


def test_gradients_are_those_of_the_recurrence():
    parts = [p.requires_grad_() for p in inputs(9)]
    ours = torch.autograd.grad(selective_scan(*parts, chunk=4).square().sum(), parts)
    theirs = torch.autograd.grad(stepwise(*parts).square().sum(), parts)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_strong_decays_stay_finite():
    x, _, read_in, read_out = inputs(40, dtype=torch.float32)
    decay = torch.full((3, 40, 2), -80.0, requires_grad=True)
    out = selective_scan(x, decay, read_in, read_out, chunk=16)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(decay.grad).all()


def test_the_layer_scales_by_the_step():
    x, _, read_in, read_out = inputs(7)
    step, rate = torch.rand(3, 7, 2, dtype=torch.float64), torch.tensor([-1.0, -2.0]).double()
    expected = stepwise(x * step[..., None], step * rate, read_in, read_out)
    torch.testing.assert_close(scan(x, step, rate, read_in, read_out), expected)


def test_without_the_kernels_nothing_is_missing(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    module.fused_scan.cache_clear()
    assert module.fused_scan() is None
    module.fused_scan.cache_clear()


@pytest.mark.parametrize("length", [1, 64, 65])
def test_causal(length):
    parts = inputs(length)
    out = selective_scan(*parts)
    changed = parts[0].clone()
    changed[:, -1] += 1
    moved = (selective_scan(changed, *parts[1:]) - out).abs().amax((0, 2, 3)) > 1e-12
    assert moved.tolist() == [False] * (length - 1) + [True]
