"""Sequence models over tokens."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hypergen.errors import SpecError
from hypergen.generators.diffusion.recurrence import AttentionBlock, ScanBlock, make_recurrence

BACKENDS = ("lstm", "transformer", "mamba")


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_output_reads_every_input(backend):
    torch.manual_seed(0)
    model = make_recurrence(backend, 16, 1, 2).double()
    x = torch.randn(1, 9, 16, dtype=torch.float64)
    out = model(x)
    for changed in (0, 4, 8):
        other = x.clone()
        other[:, changed] += torch.randn(16, dtype=torch.float64)
        moved = (model(other) - out).abs().amax(-1)[0]
        assert moved.gt(1e-9).all(), (backend, changed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_each_other(backend):
    torch.manual_seed(0)
    model = make_recurrence(backend, 16, 2, 2)
    x = torch.randn(3, 70, 16)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_parameter_learns(backend):
    torch.manual_seed(0)
    model = make_recurrence(backend, 16, 2, 2)
    model(torch.randn(2, 5, 16)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_attention_is_scaled():
    torch.manual_seed(0)
    block = AttentionBlock(16, 2)
    x = torch.randn(2, 5, 16)
    q, k, v = block.qkv(block.norm(x)).chunk(3, -1)
    q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in (q, k, v))
    weights = torch.softmax(q @ k.mT / 8**0.5, -1)
    mixed = x + block.out((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(block(x), mixed + block.mlp(block.norm_mlp(mixed)))


def test_the_two_directions_mirror_each_other():
    torch.manual_seed(0)
    block = ScanBlock(8, 2).double()
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    # With projections and filters that treat both halves alike, reversing the input reverses
    # the output.
    with torch.no_grad():
        weight, bias = block.project.weight, block.project.bias
        values = slice(16, 32)
        reads, steps = slice(32, 96), slice(96, 100)
        for part in (weight, bias):
            for s in (values, reads, steps):
                half = (s.stop - s.start) // 2
                part[s.start + half : s.stop] = part[s.start : s.start + half]
            part[8:16] = part[:8]
        block.conv.weight.copy_((block.conv.weight + block.conv.weight.flip(-1)) / 2)
        for s in (slice(0, 16), slice(16, 80)):
            half = (s.stop - s.start) // 2
            for part in (block.conv.weight, block.conv.bias):
                part[s.start + half : s.stop] = part[s.start : s.start + half]
        block.out.weight[:, 8:] = block.out.weight[:, :8]
    torch.testing.assert_close(block(x.flip(1)), block(x).flip(1))


def test_a_kernel_is_called_as_mamba_takes_it(monkeypatch):
    from hypergen.generators.diffusion import selective_scan

    seen = {}

    def kernel(x, dt, a, b, c, chunk_size):
        seen.update(x=x.shape, dt=dt.shape, a=a.shape, b=b.shape, c=c.shape, chunk=chunk_size)
        return x

    class OnAccelerator(torch.Tensor):
        is_cuda = True

    monkeypatch.setattr(selective_scan, "fused_scan", lambda: kernel)
    x = torch.zeros(2, 5, 3, 4).as_subclass(OnAccelerator)
    step, read = torch.ones(2, 5, 3), torch.ones(2, 5, 6)
    assert selective_scan.scan(x, step, -torch.ones(3), read, read) is x
    assert seen["b"] == seen["c"] == (2, 5, 1, 6)  # one group
    assert (seen["x"], seen["dt"], seen["a"]) == ((2, 5, 3, 4), (2, 5, 3), (3,))


def test_bad_options_are_told():
    with pytest.raises(SpecError, match="Did you mean 'lstm'"):
        make_recurrence("lsmt", 16, 1, 2)
    with pytest.raises(SpecError, match="no multiple"):
        make_recurrence("mamba", 18, 1, 2)


def test_long_sequences_in_one_call():
    # 4,096 tokens in a moment: there is no step of Python for each.
    torch.manual_seed(0)
    with torch.no_grad():
        out = make_recurrence("mamba", 8, 1, 1)(torch.randn(1, 4096, 8))
    assert torch.isfinite(out).all()
    assert F.mse_loss(out[:, 1:], out[:, :-1]) > 0
