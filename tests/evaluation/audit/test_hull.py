"""Residuals against explicit least squares, and on mixtures of known composition."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen.evaluation.audit.hull import (
    affine_residual,
    centred,
    convex_residual,
    onto_simplex,
)


def products(training, networks):
    return training @ training.T, networks @ training.T, networks.square().sum(1)


def make(seed=0, count=30, dim=200, scale=1.0, shift=5.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, dim, generator=generator).double() + shift


def test_the_affine_residual_is_that_of_least_squares():
    training, networks = make(), make(1, 5)
    found = affine_residual(*centred(*products(training, networks)))
    base = (training[1:] - training[0]).T
    rest = (networks - training[0]).T
    solved = torch.linalg.lstsq(base, rest).solution
    torch.testing.assert_close(found, (rest - base @ solved).norm(dim=0), rtol=1e-4, atol=1e-4)


def test_affine_combinations_lie_in_the_hull_and_far_points_do_not():
    training = make()
    weights = torch.randn(4, 30).double()
    weights /= weights.sum(1, keepdim=True)
    inside = affine_residual(*centred(*products(training, weights @ training)))
    spread = (training - training.mean(0)).norm(dim=1).median()
    assert (inside / spread < 0.01).all()


def test_means_of_sixteen_are_found_exactly():
    training = make(count=200, dim=300)
    rows = torch.rand(20, 200).argsort(1)[:, :16]
    means = training[rows].mean(1)
    found = convex_residual(*centred(*products(training, means)))
    others = convex_residual(*centred(*products(training, make(3, 20, 300))))
    assert float(found.max()) < 1e-3 * float(others.min())


def test_one_atom_is_the_nearest_network():
    training, networks = make(), make(1, 6)
    found = convex_residual(*products(training, networks), atoms=1)
    torch.testing.assert_close(found, torch.cdist(networks, training).min(1).values)


def test_it_is_a_distance_to_convex_combinations_alone():
    """Outside the hull of a segment the nearest point is its end, though the line goes on."""
    training = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).double()
    networks = torch.tensor([[2.0, 0.0], [0.5, 1.0], [0.25, 0.0]]).double()
    found = convex_residual(*products(training, networks))
    torch.testing.assert_close(found, torch.tensor([1.0, 1.0, 0.0]).double(), atol=1e-6, rtol=0)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 12))
def test_no_random_mixture_is_nearer(seed, count):
    training, networks = make(seed, count, 8, shift=0.0), make(seed + 1, 3, 8, shift=0.0)
    found = convex_residual(*products(training, networks))
    weights = torch.rand(200, count).double().pow(3)
    mixtures = (weights / weights.sum(1, keepdim=True)) @ training
    assert (found <= torch.cdist(networks, mixtures).min(1).values + 1e-2).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_the_projection_is_onto_the_simplex_and_nearest(seed):
    generator = torch.Generator().manual_seed(seed)
    values = 3 * torch.randn(4, 7, generator=generator).double()
    found = onto_simplex(values)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(4).double())
    other = torch.rand(4, 50, 7, generator=generator).double()
    other /= other.sum(2, keepdim=True)
    distance = (other - values[:, None]).norm(dim=2).min(1).values
    assert ((found - values).norm(dim=1) <= distance + 1e-9).all()
