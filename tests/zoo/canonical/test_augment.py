"""Augmentation: seeded, exact, uniform, different for each network."""

from __future__ import annotations

import pytest
import torch
import zoo_networks

from hypergen.errors import WeightsError
from hypergen.zoo.canonical import augment, random_index, random_permutations
from hypergen.zoo.networks import MLP

NET = MLP(4, (3, 5), 2)


@pytest.mark.parametrize("name", zoo_networks.NETWORKS)
def test_all_groups_at_once_keep_the_function(name):
    network = zoo_networks.NETWORKS[name]
    flat = zoo_networks.weights_of(network, 5)
    moved = augment(flat, network.symmetry(), seed=3)
    zoo_networks.assert_same_function(network, flat, moved)
    assert torch.equal(moved.sort(1).values, flat.sort(1).values)


def test_equal_seeds_are_equal_and_networks_differ():
    symmetry = NET.symmetry()
    first = random_index(symmetry, 20, seed=1)
    assert torch.equal(first, random_index(symmetry, 20, seed=1))
    assert not torch.equal(first, random_index(symmetry, 20, seed=2))
    assert len(first.unique(dim=0)) > 15


def test_every_order_is_as_likely():
    (first, _) = random_permutations(NET.symmetry(), 6000, seed=0)
    orders, counts = first.unique(dim=0, return_counts=True)
    assert len(orders) == 6
    assert bool(((counts - 1000).abs() < 150).all())  # five standard deviations


def test_any_dtype_bit_for_bit():
    flat = zoo_networks.weights_of(NET, 3).bfloat16()
    moved = augment(flat, NET.symmetry(), seed=0)
    assert moved.dtype == torch.bfloat16
    assert torch.equal(moved.float().sort(1).values, flat.float().sort(1).values)


def test_without_groups_or_networks_nothing_moves():
    linear = MLP(4, (), 2)
    flat = zoo_networks.weights_of(linear, 3)
    assert torch.equal(augment(flat, linear.symmetry(), seed=0), flat)
    none = torch.empty(0, NET.spec().numel)
    assert augment(none, NET.symmetry(), seed=0).shape == none.shape


def test_other_weights_are_refused():
    with pytest.raises(WeightsError, match=r"not \[3, 5\]"):
        augment(torch.zeros(3, 5), NET.symmetry(), seed=0)
