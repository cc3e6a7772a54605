"""Distances against explicit ones; canonical ones ignore what changes no function."""

from __future__ import annotations

import torch

from hypergen.evaluation.audit.space import FlatSpace, UpdateSpace, make_spaces
from hypergen.specs import LoRASpec
from hypergen.zoo.canonical import augment
from hypergen.zoo.networks import CNN, MLP


def starts(spec, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(count, spec.numel, generator=generator)
    return draws * spec.per_entry("std") + spec.per_entry("mean")


def test_plain_distances_are_euclidean():
    spec = MLP(5, (4,), 3).spec()
    a, b = starts(spec, 7), starts(spec, 9, 1)
    space = FlatSpace(spec, b)
    torch.testing.assert_close(space.distances(a, b), torch.cdist(a.double(), b.double()))
    assert float(space.distances(a, a).diagonal().max()) < 1e-6


def test_strips_of_columns_change_nothing(monkeypatch):
    spec = MLP(50, (8,), 3).spec()
    a, b = starts(spec, 7), starts(spec, 9, 1)
    whole = FlatSpace(spec, b).distances(a, b)
    monkeypatch.setattr("hypergen.evaluation.audit.space._NUMBERS", 1)
    torch.testing.assert_close(FlatSpace(spec, b).distances(a, b), whole)


def test_permuted_networks_are_at_no_distance():
    for network in (MLP(6, (8, 8), 3), CNN((1, 8, 8), (6, 6), 3, norm="batch")):
        spec = network.spec()
        training = starts(spec, 12)
        plain, canonical = make_spaces(spec, training, network.to_dict())
        moved = augment(training, network.symmetry(), seed=1)
        a, b = (canonical.map(x) for x in (moved, training))
        assert float(canonical.distances(a, b).diagonal().max()) < 1e-4
        a, b = (plain.map(x) for x in (moved, training))
        assert float(plain.distances(a, b).diagonal().min()) > 0.1


def test_batch_norm_statistics_do_not_count():
    network = CNN((1, 8, 8), (6,), 3, norm="batch")
    spec = network.spec()
    training = starts(spec, 5)
    other = training.clone()
    place = 0
    for slot in spec.slots:
        if "running" in slot.name:
            other[:, place : place + slot.numel] += 3
        place += slot.numel
    for space in make_spaces(spec, training, network.to_dict()):
        distances = space.distances(space.map(other), space.map(training))
        assert float(distances.diagonal().max()) < 1e-5


def test_refining_finds_noisy_copies_that_matching_to_a_reference_loses():
    network = MLP(16, (24, 24), 4)
    spec = network.spec()
    training = starts(spec, 30)
    noisy = training + 0.2 * training.std(0) * torch.randn(training.shape)
    plain, space = make_spaces(spec, training, network.to_dict())
    a, b = space.map(noisy), space.map(training)
    rough = space.distances(a, b)
    hints = plain.distances(noisy, training).argmin(1)
    fine = space.refine(a, b, rough, hints)
    assert (fine <= rough + 1e-9).all()
    assert torch.equal(fine.argmin(1), torch.arange(30))
    assert float(fine.diagonal().max()) < 0.5 * float(rough.diagonal().max())
    excluded = rough.masked_fill(torch.eye(30, dtype=torch.bool), torch.inf)
    again = space.refine(a, b, excluded, torch.arange(30))
    assert torch.isinf(again.diagonal()).all()


def test_updates_are_compared_whatever_their_factors(tiny_lora):
    spec = tiny_lora
    assert isinstance(spec, LoRASpec)
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(6, spec.numel, generator=generator)
    space = next(s for s in make_spaces(spec, flat) if isinstance(s, UpdateSpace))
    weights = spec.from_flat(flat)
    named = weights.named()
    updates, mixed = [], {}
    for module in spec.modules:
        name_a, name_b = spec.pair_names(module)
        a, b = named[name_a].double(), named[name_b].double()
        updates.append((spec.scaling(module) * b @ a).flatten(1))
        turn = torch.randn(spec.rank(module), spec.rank(module), generator=generator).double()
        mixed[name_a], mixed[name_b] = turn @ a, b @ torch.linalg.inv(turn)
    whole = torch.cat(updates, dim=1)
    torch.testing.assert_close(space.distances(flat, flat[:4]), torch.cdist(whole, whole[:4]))
    other = torch.cat([mixed[slot.name].flatten(1) for slot in spec.slots], dim=1)
    assert float(space.distances(other, flat.double()).diagonal().max()) < 1e-4
