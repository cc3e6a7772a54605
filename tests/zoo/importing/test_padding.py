"""Padded pairs keep their update, and masks mark what is theirs."""

from __future__ import annotations

import pytest
import tiny
import torch

from hypergen.errors import WeightsError
from hypergen.specs import LoRASpec
from hypergen.zoo.importing import rank_mask
from hypergen.zoo.importing.padding import pad_pair


@pytest.mark.parametrize("factor", [1.0, 0.7, -2.0])
def test_padding_keeps_the_update(factor):
    a, b = torch.randn(2, 5), torch.randn(4, 2)
    wide_a, wide_b = pad_pair(a, b, 6, factor)
    assert wide_a.shape == (6, 5)
    assert wide_b.shape == (4, 6)
    assert torch.allclose(wide_b @ wide_a, factor * b @ a, atol=1e-6)
    assert torch.equal(wide_a[:2], a)
    assert not wide_a[2:].any()
    assert not wide_b[:, 2:].any()


def test_half_precision_is_scaled_in_float32():
    b = torch.randn(4, 2).bfloat16()
    _, scaled = pad_pair(torch.randn(2, 5).bfloat16(), b, 2, 1 / 3)
    assert scaled.dtype == torch.float32
    assert torch.equal(scaled, (b.double() / 3).float())


def test_the_mask_is_where_padding_is_not():
    spec = LoRASpec(tiny.model("tagger"), ["embed", "fc1"], r=4)
    mask = rank_mask(spec, {"embed": 1, "fc1": 3})
    assert mask.dtype == torch.bool
    tensors = {}
    for path, rank in {"embed": 1, "fc1": 3}.items():
        a, b = spec.pair_names(path)
        inputs, outputs = spec[a].shape[1], spec[b].shape[0]
        tensors[a], tensors[b] = pad_pair(torch.ones(rank, inputs), torch.ones(outputs, rank), 4)
    assert torch.equal(mask, spec.pack(tensors) == 1)
    assert rank_mask(spec, {}).all()


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({"fcc1": 1}, "'fcc1', which the spec does not adapt. Did you mean 'fc1'"),
        ({"fc1": 5}, "'fc1' has the true rank 5; the spec holds 1 to 4"),
        ({"fc1": 0}, "'fc1' has the true rank 0"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(ranks, message):
    spec = LoRASpec(tiny.model("tagger"), ["fc1", "fc2"], r=4)
    with pytest.raises(WeightsError, match=message):
        rank_mask(spec, ranks)
