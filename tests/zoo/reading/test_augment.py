from __future__ import annotations

import torch

from hypergen.targets import FunctionalTarget
from hypergen.zoo.canonical import Symmetry
from hypergen.zoo.networks import MLP
from hypergen.zoo.reading import RandomPermutation

NETWORK = MLP(inputs=5, hidden=(6, 4), outputs=3)


def some_networks(count: int) -> torch.Tensor:
    spec = NETWORK.spec()
    return torch.randn(count, spec.numel, generator=torch.Generator().manual_seed(2))


def test_permuted_networks_do_the_same():
    flat, spec = some_networks(8), NETWORK.spec()
    permuted = RandomPermutation(NETWORK.symmetry())(flat, torch.arange(8))
    assert not (permuted == flat).all(1).any()
    assert torch.equal(permuted.sort(1).values, flat.sort(1).values)
    target = FunctionalTarget(NETWORK.module(), spec)
    x = torch.randn(8, 7, 5)
    outputs = [target(spec.from_flat(weights), x) for weights in (flat, permuted)]
    assert torch.allclose(*outputs, atol=1e-5)


def test_a_row_depends_on_its_own_seed_alone():
    flat = some_networks(1).expand(50, -1)
    augment = RandomPermutation(NETWORK.symmetry())
    seeds = torch.arange(50)
    found = augment(flat, seeds)
    assert torch.equal(found[7:9], augment(flat[7:9], seeds[7:9]))
    assert len(found.unique(dim=0)) == 50


def test_every_order_is_as_likely():
    network = MLP(inputs=1, hidden=(3,), outputs=1)
    spec = network.spec()
    flat = torch.arange(spec.numel).float().expand(6000, -1)
    found = RandomPermutation(network.symmetry())(flat, torch.arange(6000))
    counts = found.unique(dim=0, return_counts=True)[1]
    assert len(counts) == 6
    assert float((counts - 1000).abs().max()) < 150  # five standard deviations


def test_without_groups_nothing_changes():
    spec = NETWORK.spec()
    flat = some_networks(2)
    assert torch.equal(RandomPermutation(Symmetry(spec, []))(flat, torch.arange(2)), flat)
