"""Each baseline is what its name says, and leaves the checkpoints as they are."""

from __future__ import annotations

import pytest
import torch

from hypergen.evaluation.audit.baselines import (
    AVERAGED,
    LABELS,
    NOISE,
    make_baselines,
    memorise,
    mix,
)
from hypergen.evaluation.audit.records import Networks
from hypergen.zoo.networks import MLP

SPEC = MLP(4, (3,), 2).spec()


def training(count=40):
    generator = torch.Generator().manual_seed(0)
    return Networks.of(torch.randn(count, SPEC.numel, generator=generator) * 2 + 1)


def by_kind(made):
    return {baseline.kind: baseline for baseline in made}


def test_all_are_made_and_nothing_is_changed():
    networks = training()
    before = networks.flat.clone()
    made = make_baselines(SPEC, networks, count=10, reconstruct=lambda x: x.mul_(0))
    assert torch.equal(networks.flat, before)
    kinds = set(by_kind(made))
    assert kinds == set(LABELS) - {"nearest"}
    assert len(NOISE) >= 6
    assert all(b.flat.shape == (10, SPEC.numel) and len(b.label) > 3 for b in made)
    again = make_baselines(SPEC, networks, count=10, reconstruct=lambda x: x * 0)
    assert all(torch.equal(a.flat, b.flat) for a, b in zip(made, again, strict=True))


def test_noise_averages_and_interpolations_are_that():
    networks = training(200)
    made = by_kind(make_baselines(SPEC, networks, count=50))
    nearest = {
        k: torch.cdist(b.flat.double(), networks.flat.double()).min(1).values
        for k, b in made.items()
    }
    typical = float(networks.flat.std()) * SPEC.numel**0.5
    for size in NOISE[:4]:
        assert float(nearest[f"noise_{size:g}"].mean()) == pytest.approx(size * typical, rel=0.2)
    average = made["average"].flat
    assert float(average.std(0).mean() / networks.flat.std(0).mean()) == pytest.approx(
        AVERAGED**-0.5, rel=0.2
    )
    gaussian = made["gaussian"].flat
    torch.testing.assert_close(gaussian.mean(0), networks.flat.mean(0), atol=1.5, rtol=0)
    assert float(nearest["minimiser"].max()) < 1e-3
    # Between two points, the distances to both add up to theirs.
    distances = torch.cdist(made["interpolation"].flat.double(), networks.flat.double())
    apart = torch.cdist(networks.flat.double(), networks.flat.double()).fill_diagonal_(1e-9)
    detour = (distances[:, :, None] + distances[:, None]) / apart
    torch.testing.assert_close(detour.amin((1, 2)), torch.ones(50).double(), atol=1e-4, rtol=0)


def test_with_conditions_the_nearest_are_used():
    networks = training()
    networks = Networks(networks.flat, networks.groups, torch.arange(40))
    similarity = torch.zeros(3, 40)
    similarity[torch.arange(3), torch.tensor([7, 11, 30])] = 1.0
    tasks = torch.tensor([100, 101, 102])
    made = by_kind(make_baselines(SPEC, networks, count=99, similarity=similarity, tasks=tasks))
    assert torch.equal(made["nearest"].flat, networks.flat[[7, 11, 30]])
    assert "minimiser" not in made
    assert all(torch.equal(b.tasks, tasks) for b in made.values())
    merged = (made["merge"].flat - networks.flat[[7, 11, 30]]).norm(dim=1)
    others = (made["average"].flat - networks.flat[[7, 11, 30]]).norm(dim=1)
    assert (merged < others).all()


def test_mixtures_of_matched_networks_come_from_the_canonical_form():
    networks = training()
    made = by_kind(make_baselines(SPEC, networks, count=5, canonical=lambda flat: flat * 0 + 7))
    assert torch.allclose(made["average_canonical"].flat, torch.tensor(7.0))
    assert made["average_canonical"].label.endswith(", units matched")
    assert not torch.allclose(made["average"].flat, torch.tensor(7.0))


def test_the_memoriser_remembers_different_networks():
    networks = training(20)
    networks = Networks(networks.flat, networks.groups, torch.arange(20))
    made = by_kind(make_baselines(SPEC, networks, count=10))["minimiser"]
    torch.testing.assert_close(made.flat, networks.flat[made.tasks], atol=1e-2, rtol=0)
    found = memorise(SPEC, networks.flat, 30, seed=0)
    distances, nearest = torch.cdist(found.double(), networks.flat.double()).min(1)
    assert float(distances.max()) < 1e-3
    assert len(nearest.unique()) > 5


def test_sums_are_weighted():
    flat = torch.arange(12.0).view(4, 3)
    found = mix(flat, torch.tensor([[0, 2], [1, 1]]), torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    assert torch.equal(found, torch.stack([(flat[0] + flat[2]) / 2, flat[1]]))


def test_a_slot_that_no_training_changed_is_no_obstacle():
    networks = training()
    flat = networks.flat.clone()
    flat[:, : SPEC.slots[0].numel] = 0.0
    made = make_baselines(SPEC, Networks.of(flat), count=4)
    assert all(bool(torch.isfinite(b.flat).all()) for b in made)
