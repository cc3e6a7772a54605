"""CNN: shapes, biases, statistics, groups of streams and blocks."""

from __future__ import annotations

import pytest
import torch

from hypergen.zoo.networks import CNN


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_any_image_size(norm, residual):
    for image in [(1, 28, 28), (3, 32, 32), (2, 1, 5)]:
        net = CNN(image, (4, 6), 3, norm, residual)
        assert net.module()(torch.randn(2, *image)).shape == (2, 3)


def test_normalisation_takes_the_place_of_the_bias():
    plain, normed = CNN(norm=None).spec(), CNN(norm="batch").spec()
    assert "stages.0.down.conv.bias" in plain
    assert "stages.0.down.conv.bias" not in normed
    assert normed["stages.0.down.norm.running_var"].mean == 1
    assert normed["stages.0.down.norm.running_mean"].mean == 0
    assert "stages.0.down.norm.running_var" not in CNN(norm="layer").spec()


def test_a_residual_stream_is_one_group():
    groups = {g.name: g for g in CNN((1, 8, 8), (4, 6), 3, None, True).symmetry().groups}
    assert list(groups) == ["stage0", "stage0.inner", "stage1", "stage1.inner"]
    places = {(p.slot, p.axis) for p in groups["stage0"].places}
    assert places == {
        ("stages.0.down.conv.weight", 0),
        ("stages.0.down.conv.bias", 0),
        ("stages.0.outer.conv.weight", 0),
        ("stages.0.outer.conv.bias", 0),
        ("stages.0.inner.conv.weight", 1),
        ("stages.1.down.conv.weight", 1),
    }


def test_only_channels_outside_a_stream_can_be_rescaled():
    assert [g.name for g in CNN().scaling()] == ["stage0", "stage1", "stage2"]
    assert [g.name for g in CNN(residual=True, channels=(4,)).scaling()] == ["stage0.inner"]
