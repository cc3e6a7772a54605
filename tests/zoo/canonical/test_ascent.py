"""Coordinate ascent: optimal assignments, the order of the forward pass, stale groups."""

from __future__ import annotations

import itertools

import pytest
import torch
import zoo_networks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hypergen.specs import FullSpec
from hypergen.zoo.canonical import PermutationGroup, Place, Symmetry, augment
from hypergen.zoo.canonical.ascent import Ascent, assign, forward_order
from hypergen.zoo.networks import CNN, MLP, ViT


def worth(costs, columns):
    return costs.gather(2, columns[..., None]).sum((1, 2))


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 5), levels=st.sampled_from([0, 1]))
def test_assignments_are_optimal(seed, n, levels):
    generator = torch.Generator().manual_seed(seed)
    costs = torch.randn(6, n, n, generator=generator, dtype=torch.float64)
    costs = costs.round() if levels else costs  # ties
    columns = assign(costs)
    assert torch.equal(columns.sort(1).values, torch.arange(n).repeat(6, 1))
    every = [worth(costs, torch.tensor([p] * 6)) for p in itertools.permutations(range(n))]
    assert torch.allclose(worth(costs, columns), torch.stack(every).amax(0), atol=1e-12)


@pytest.mark.parametrize(
    ("network", "order"),
    [
        (MLP(64, (32, 16, 8), 10), [0, 1, 2]),
        (MLP(4, (8, 8, 8), 100), [2, 1, 0]),  # the outputs say more than the inputs
        (CNN((1, 8, 8), (4, 6), 3, residual=True), [0, 1, 2, 3]),
        (ViT(depth=1), [2, 0, 1]),  # the stream, the heads, the perceptron
    ],
)
def test_the_forward_pass_starts_where_most_is_known(network, order):
    assert [g for g, _ in forward_order(network.symmetry())] == order


def test_the_forward_pass_uses_settled_entries_alone():
    network = MLP(4, (3, 5), 2)
    symmetry = network.symmetry()
    (_, first), (_, second) = forward_order(symmetry)
    names = [
        {name for name, t in symmetry.spec.unpack(torch.arange(float(symmetry.spec.numel))).items()
         if bool(torch.isin(t.long(), torch.cat([e.flatten() for e in part])).any())}
        for part in (first, second)
    ]  # fmt: skip
    assert names == [{"0.weight", "0.bias"}, {"2.weight", "2.bias", "4.weight"}]


def test_a_group_without_settled_entries_is_matched_on_all():
    spec = FullSpec(nn.Linear(4, 4, bias=False))
    square = Symmetry(
        spec, [PermutationGroup("units", 4, (Place("weight", 0), Place("weight", 1)))]
    )
    ((g, entries),) = forward_order(square)
    assert (g, [tuple(e.shape) for e in entries]) == (0, [(4, 4), (4, 4)])


def test_the_forward_pass_does_not_see_the_given_order():
    network = zoo_networks.NETWORKS["cnn-batch-residual"]
    symmetry, flat = network.symmetry(), zoo_networks.weights_of(network, 6)
    moved = augment(flat, symmetry, seed=4)
    results = [
        x.gather(1, symmetry.index(Ascent(x, flat[:1], symmetry).forward())) for x in (flat, moved)
    ]
    assert torch.equal(*results)


def test_no_sweep_changes_nothing():
    network = zoo_networks.NETWORKS["mlp-relu"]
    flat = zoo_networks.weights_of(network, 3)
    for permutation in Ascent(flat, flat[:1], network.symmetry()).run("given", 0):
        assert torch.equal(permutation, torch.arange(permutation.shape[1]).repeat(3, 1))


def test_only_neighbours_go_stale():
    ascent = Ascent(
        *zoo_networks.weights_of(net := MLP(4, (3, 3, 3), 2), 2)[:, None], net.symmetry()
    )
    assert ascent.neighbours.tolist() == [
        [False, True, False],
        [True, False, True],
        [False, True, False],
    ]
