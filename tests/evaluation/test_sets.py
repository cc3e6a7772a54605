"""Sets of images: fidelity, coverage and difference."""

from __future__ import annotations

import pytest
import torch

from hypergen.errors import UsageError
from hypergen.evaluation.sets import (
    compare_sets,
    coverage,
    decode_images,
    mean_squared_distances,
    minimum_matching_distance,
    nearest_neighbour_accuracy,
)
from hypergen.zoo.networks import MLP, SIREN


def cloud(count: int, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return shift + torch.randn(count, 3, 4, generator=draw)


def test_distances_are_mean_squares():
    a, b = cloud(5), cloud(7, 1)
    expected = (a[:, None] - b[None]).square().mean((2, 3))
    assert torch.allclose(mean_squared_distances(a, b), expected, atol=1e-5)
    assert not bool(mean_squared_distances(a, a).diagonal().any())
    far = 1e4 + a  # inner products would round the distance away
    assert torch.allclose(mean_squared_distances(far, far[:1] + 1)[0], torch.ones(1), rtol=0.01)


def test_measures_by_hand():
    across = torch.tensor([[1.0, 2, 9], [3, 1, 8], [2, 1, 7]])  # [generated, reference]
    assert minimum_matching_distance(across).tolist() == [1, 1, 7]
    assert coverage(across).tolist() == [1, 1, 0]
    own = torch.tensor([[0.0, 5, 5], [5, 0, 0.5], [5, 0.5, 0]])
    real = torch.tensor([[0.0, 4, 4], [4, 0, 4], [4, 4, 0]])
    # Generated: nearest are reference 0; each other twice. Reference: generated 0, generated 1,
    # and reference 0.
    assert nearest_neighbour_accuracy(own, across, real).tolist() == [0, 1, 1, 0, 0, 1]


def test_copies_cover_everything_and_are_told_by_being_too_near():
    real = cloud(40)
    found = compare_sets({"copies": real, "one": real[:1].expand(40, -1, -1)}, real)
    assert found.values["copies"] == {"mmd": 0.0, "coverage": 1.0, "1-nna": 0.0}
    assert found.values["one"]["coverage"] == pytest.approx(1 / 40)
    assert found.values["one"]["mmd"] > 1


def test_sets_of_one_distribution_cannot_be_told_apart():
    sets = {"same": cloud(400, 1), "shifted": cloud(400, 2, 3.0)}
    found = compare_sets(sets, cloud(400, 3))
    low, high = found.ci["same"]["1-nna"]
    assert low < found.values["same"]["1-nna"] < high
    assert found.values["same"]["1-nna"] == pytest.approx(0.5, abs=0.06)
    assert found.values["shifted"]["1-nna"] > 0.95
    assert found.values["shifted"]["mmd"] > found.values["same"]["mmd"]
    assert found.values["shifted"]["coverage"] < found.values["same"]["coverage"]
    assert found.to_dict()["ci"]["same"]["1-nna"] == [low, high]
    assert "0.5 is the best 1-NNA" in found.to_table()


def test_sets_are_cut_to_one_size_by_seed():
    sets = {"a": cloud(30, 1), "b": cloud(50, 2)}
    found = compare_sets(sets, cloud(40, 3))
    assert found.size == 30
    assert compare_sets(sets, cloud(40, 3)).to_dict() == found.to_dict()
    assert compare_sets(sets, cloud(40, 3), seed=1).to_dict() != found.to_dict()
    with pytest.raises(UsageError, match="'c' has shape"):
        compare_sets({"c": cloud(1)}, cloud(40))
    with pytest.raises(UsageError, match="'c' has shape"):
        compare_sets({"c": cloud(9)[:, :2]}, cloud(40))


def test_images_are_what_the_networks_say_at_the_centres_of_pixels():
    network = SIREN(2, (6,), 3)
    flat = torch.stack([network.spec().initial(seed) for seed in range(5)])
    images = decode_images(network, flat, 4, 6)
    assert images.shape == (5, 4, 6, 3)
    module = network.module()
    module.load_state_dict(network.spec().unpack(flat[3]))
    place = torch.tensor([[(2 + 0.5) / 4 * 2 - 1, (1 + 0.5) / 6 * 2 - 1]])
    with torch.no_grad():
        assert torch.allclose(images[3, 2, 1], module(place)[0], atol=1e-5)
    assert torch.allclose(decode_images(network, flat[3:4], 4, 6)[0], images[3], atol=1e-5)
    with pytest.raises(UsageError, match="two coordinates"):
        decode_images(MLP(5, (4,), 2), torch.zeros(1, MLP(5, (4,), 2).spec().numel), 4, 4)
