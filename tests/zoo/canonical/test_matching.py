"""Weight matching: exact, monotone, idempotent, blind to the order of units."""

from __future__ import annotations

import itertools

import pytest
import torch
import zoo_networks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hypergen.errors import UsageError, WeightsError
from hypergen.specs import FullSpec
from hypergen.zoo.canonical import (
    PermutationGroup,
    Place,
    Symmetry,
    align,
    augment,
    canonicalize,
    match,
    matching,
    pick_reference,
)
from hypergen.zoo.networks import MLP

each = pytest.mark.parametrize("name", zoo_networks.NETWORKS)


def similarity(flat, reference):
    return (flat.double() * reference.double()).sum(1)


def slack(flat, reference):
    """Rounding of an inner product."""
    return 1e-8 * flat.double().norm(dim=1) * reference.double().norm(dim=-1)


@each
def test_the_function_stays(name):
    network = zoo_networks.NETWORKS[name]
    flat = zoo_networks.weights_of(network, 5)
    for start in ("best", "forward", "given"):
        out = align(flat, flat[0], network.symmetry(), start=start)
        zoo_networks.assert_same_function(network, flat, out)
        assert torch.equal(out.sort(1).values, flat.sort(1).values)
        assert torch.equal(out[0], flat[0])


@each
def test_a_permuted_copy_comes_back_exactly(name):
    network = zoo_networks.NETWORKS[name]
    flat = zoo_networks.weights_of(network, 20)
    for start in ("best", "forward"):
        copies = augment(flat, network.symmetry(), seed=5)
        assert torch.equal(align(copies, flat, network.symmetry(), start=start), flat)
    repeated = augment(flat[:1].repeat(20, 1), network.symmetry(), seed=6)
    assert torch.equal(align(repeated, flat[0], network.symmetry()), flat[:1].repeat(20, 1))


@each
def test_canonical_forms_are_one_for_each_function(name):
    network = zoo_networks.NETWORKS[name]
    symmetry, flat = network.symmetry(), zoo_networks.weights_of(network, 10)
    once = canonicalize(flat, symmetry)
    assert torch.equal(canonicalize(once, symmetry), once)
    reference = flat[pick_reference(flat, symmetry)]
    moved = augment(flat, symmetry, seed=7)
    assert torch.equal(canonicalize(moved, symmetry, reference), once)
    zoo_networks.assert_same_function(network, flat, once)
    assert torch.equal(canonicalize(once, symmetry, reference), once)


@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(zoo_networks.NETWORKS)),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    levels=st.sampled_from([0, 1, 3]),
)
def test_similarity_never_falls(name, seed, scale, levels):
    network = zoo_networks.NETWORKS[name]
    symmetry = network.symmetry()
    generator = torch.Generator().manual_seed(seed)
    flat, reference = scale * torch.randn(2, 4, symmetry.spec.numel, generator=generator)
    if levels:  # ties everywhere, dead units among them
        flat, reference = ((levels * x / scale).round() * scale for x in (flat, reference))
    before, room = similarity(flat, reference), slack(flat, reference)
    for start in ("given", "best"):
        values = [before]
        for sweeps in range(4):
            out = align(flat, reference, symmetry, start=start, max_sweeps=sweeps)
            values.append(similarity(out, reference))
        values.append(similarity(align(flat, reference, symmetry, start=start), reference))
        if start == "given":
            assert all(bool((b >= a - room).all()) for a, b in itertools.pairwise(values))
        assert bool((values[-1] >= before - room).all())
    # At the end no step is left to take.
    end = align(flat, reference, symmetry)
    assert torch.equal(align(end, reference, symmetry, start="given"), end)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), levels=st.sampled_from([0, 1, 2]))
def test_canonical_forms_are_idempotent_with_ties(seed, levels):
    network = MLP(3, (4, 3), 2)
    symmetry = network.symmetry()
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(6, symmetry.spec.numel, generator=generator)
    flat = (levels * flat).round() if levels else flat
    once = canonicalize(flat, symmetry, flat[0])
    assert torch.equal(canonicalize(once, symmetry, flat[0]), once)
    assert torch.equal(once[0], flat[0])


def test_one_layer_is_matched_optimally():
    network = MLP(3, (5,), 2)
    symmetry = network.symmetry()
    flat, reference = zoo_networks.weights_of(network, 2)[:, None]
    best = max(
        float(similarity(flat.gather(1, symmetry.index([torch.tensor([p])])), reference))
        for p in itertools.permutations(range(5))
    )
    for start in ("best", "forward", "given"):
        out = align(flat, reference[0], symmetry, start=start)
        assert float(similarity(out, reference)) == pytest.approx(best, abs=1e-9)


def test_the_best_start_is_no_worse_than_either():
    network = MLP(8, (16, 16), 4)
    symmetry, flat = network.symmetry(), zoo_networks.weights_of(network, 40)
    value = {
        start: similarity(align(flat, flat[0], symmetry, start=start), flat[:1])
        for start in ("best", "forward", "given")
    }
    assert bool((value["best"] >= torch.maximum(value["forward"], value["given"]) - 1e-9).all())
    assert float(value["best"].mean()) > float(value["given"].mean())
    assert float(value["given"].mean()) > float(similarity(flat, flat[:1]).mean())


def test_a_recurrent_matrix_is_matched_and_never_gets_worse():
    spec = FullSpec(nn.RNN(3, 6))
    rows = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    places = (*(Place(row, 0) for row in rows), Place("weight_hh_l0", 1))
    symmetry = Symmetry(spec, [PermutationGroup("state", 6, places)])
    flat = torch.randn(30, spec.numel)
    assert torch.equal(align(augment(flat, symmetry, 0), flat, symmetry), flat)
    reference = torch.randn(spec.numel)
    out = align(flat, reference, symmetry, start="given")
    assert bool((similarity(out, reference) >= similarity(flat, reference)).all())
    assert not torch.equal(out, flat)


def test_a_network_does_not_depend_on_its_batch(monkeypatch):
    network = zoo_networks.NETWORKS["cnn-batch-residual"]
    symmetry, flat = network.symmetry(), zoo_networks.weights_of(network, 7)
    references = zoo_networks.weights_of(network, 7, seed=100)
    together = align(flat, references, symmetry)
    for i in range(7):
        assert torch.equal(align(flat[i : i + 1], references[i], symmetry)[0], together[i])
    monkeypatch.setattr(matching, "_ENTRIES", 3 * symmetry.spec.numel)
    assert torch.equal(align(flat, references, symmetry), together)


def test_half_precision_is_moved_bit_for_bit():
    network = zoo_networks.NETWORKS["mlp-relu"]
    flat = zoo_networks.weights_of(network, 3).half()
    copies = augment(flat, network.symmetry(), seed=0)
    assert torch.equal(align(copies, flat, network.symmetry()), flat)


def test_the_reference_is_typical_and_the_same_for_permuted_networks():
    network = zoo_networks.NETWORKS["mlp-relu"]
    symmetry, flat = network.symmetry(), zoo_networks.weights_of(network, 9)
    flat[0] *= 50  # diverged
    flat[1] = 0  # dead
    chosen = pick_reference(flat, symmetry)
    assert chosen > 1
    assert pick_reference(augment(flat, symmetry, seed=0), symmetry) == chosen
    same = augment(flat[2:3].repeat(5, 1), symmetry, seed=0)
    assert pick_reference(same, symmetry) == 0


def test_without_groups_or_networks():
    linear = MLP(4, (), 2)
    flat = zoo_networks.weights_of(linear, 3)
    assert torch.equal(canonicalize(flat, linear.symmetry()), flat)
    symmetry = MLP(4, (3,), 2).symmetry()
    none = torch.empty(0, symmetry.spec.numel)
    assert canonicalize(none, symmetry).shape == none.shape
    assert align(none, torch.zeros(symmetry.spec.numel), symmetry).shape == none.shape
    with pytest.raises(WeightsError, match="no networks to pick"):
        pick_reference(none, symmetry)


def test_bad_input_is_refused():
    network = MLP(4, (3,), 2)
    symmetry, flat = network.symmetry(), zoo_networks.weights_of(network, 3)
    with pytest.raises(UsageError, match=r"no start 'forwards'\. Did you mean 'forward'"):
        match(flat, flat[0], symmetry, start="forwards")
    with pytest.raises(WeightsError, match=r"shape \[N, 23\], not \[3, 22\]"):
        match(flat[:, 1:], flat[0], symmetry)
    with pytest.raises(WeightsError, match="2 references for 3 networks"):
        match(flat, flat[:2], symmetry)
    broken = flat.clone()
    broken[1, 4] = float("nan")
    with pytest.raises(WeightsError, match="network 1 contains NaN or infinity"):
        match(broken, flat[0], symmetry)
    with pytest.raises(WeightsError, match="reference 1 contains NaN"):
        match(flat, broken, symmetry)
