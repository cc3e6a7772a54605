"""Polar factors are exact, deterministic, and have finite gradients where eigenvalues meet."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypergen.generators.fast_weights.polar import leading_directions, polar_factor


def exact(state: torch.Tensor, rank: int | None = None) -> torch.Tensor:
    """UVᵀ of the singular vectors of non-zero (or the largest) singular values, in float64."""
    u, s, v = torch.linalg.svd(state.double(), full_matrices=False)
    kept = s > 1e-9 * s[..., :1]
    if rank is not None:
        kept = kept & (torch.arange(s.shape[-1]) < rank)
    return (u * kept[..., None, :]) @ v


def made(singular: list[float], rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    n = len(singular)
    left, _ = torch.linalg.qr(torch.randn(rows, n, generator=draw, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, n, generator=draw, dtype=torch.float64))
    return (left * torch.tensor(singular, dtype=torch.float64)) @ right.T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "columns"), [(12, 5), (5, 12), (6, 6)])
@pytest.mark.parametrize(
    "singular",
    [[3.0, 2.0, 1.5, 1.0, 0.5], [1.0] * 5, [100.0, 1.0, 0.9, 0.8, 0.7], [2.0, 1.0], [1e-12], [1e9]],
)
def test_it_is_the_polar_factor_also_of_lower_rank(singular, rows, columns, dtype):
    state = made(singular, rows, columns).to(dtype)
    out = polar_factor(state)
    assert out.dtype == dtype
    assert float((out.double() - exact(made(singular, rows, columns))).abs().max()) < 1e-4


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 99), st.floats(1e-6, 1e6))
def test_neither_size_nor_other_rows_of_a_batch_matter(rows, columns, seed, size):
    draw = torch.Generator().manual_seed(seed)
    batch = torch.randn(3, rows, columns, generator=draw, dtype=torch.float64)
    out = polar_factor(batch)
    assert torch.equal(out, polar_factor(batch))
    torch.testing.assert_close(polar_factor(batch[1] * size), out[1], rtol=1e-6, atol=1e-8)
    assert float(torch.linalg.matrix_norm(out, 2).max()) <= 1 + 1e-9


def test_turned_states_have_turned_factors():
    state = made([2.0, 1.0, 0.5], 6, 4)
    turn, _ = torch.linalg.qr(made([1.0] * 6, 6, 6, seed=1))
    torch.testing.assert_close(polar_factor(turn @ state), turn @ polar_factor(state))


def test_zeros_stay_zeros_and_pass_a_finite_gradient():
    state = torch.zeros(2, 4, 3, requires_grad=True)
    out = polar_factor(state)
    assert not bool(out.any())
    out.sum().backward()
    assert bool(torch.isfinite(state.grad).all())


@pytest.mark.parametrize(
    "singular", [[2.0, 1.0, 0.5], [1.0, 1.0, 1.0], [1.0, 1.0, 1e-3], [1.0, 0.3], [0.7]]
)
def test_gradients_are_right_where_singular_values_meet_or_vanish(singular):
    state = made(singular, 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: polar_factor(s, 1e-3), (state,), atol=1e-4)
    (polar_factor(state) * torch.randn(5, 3)).sum().backward()
    assert bool(torch.isfinite(state.grad).all())


@pytest.mark.parametrize("polar", [True, False])
def test_leading_directions_are_those_of_the_decomposition(polar):
    state = torch.stack([made([4.0, 2.0, 1.0, 0.3], 7, 5, seed) for seed in range(2)])
    left, right = leading_directions(state.float(), 2, polar=polar)
    assert left.shape == (2, 7, 2)
    assert right.shape == (2, 5, 2)
    u, s, v = torch.linalg.svd(state, full_matrices=False)
    wanted = exact(state, 2) if polar else (u[..., :2] * s[..., None, :2]) @ v[..., :2, :]
    torch.testing.assert_close((left @ right.mT).double(), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((right.mT @ right), torch.eye(2).expand(2, 2, 2))
    assert bool((right.gather(-2, right.abs().argmax(-2, keepdim=True)) > 0).all())


def test_all_directions_are_the_whole_matrix():
    state = made([4.0, 2.0, 1.0], 7, 3)
    left, right = leading_directions(state, 3, polar=True)
    torch.testing.assert_close(left @ right.mT, polar_factor(state))


@pytest.mark.parametrize("polar", [True, False])
@pytest.mark.parametrize(
    "singular", [[2.0, 1.0, 0.5, 0.2], [1.0, 1.0, 0.5, 0.5], [2.0, 1.0], [2.0]]
)
def test_gradients_of_the_leading_part_are_right(singular, polar):
    state = made(singular, 5, 4).requires_grad_()

    def leading(s):
        left, right = leading_directions(s, 2, 1e-3, polar)
        return left @ right.mT

    assert torch.autograd.gradcheck(leading, (state,), atol=1e-4)


@pytest.mark.parametrize("polar", [True, False])
def test_directions_that_are_not_there_vanish(polar):
    left, right = leading_directions(made([2.0], 5, 4).float(), 3, polar=polar)
    assert float(right[:, 0].norm()) == pytest.approx(1)
    assert float(left[:, 1:].abs().max()) < 1e-5
    assert float(right[:, 1:].abs().max()) < 1e-5


def test_a_tie_at_the_cut_has_a_finite_gradient():
    state = made([1.0, 1.0, 1.0], 5, 3).float().requires_grad_()
    left, right = leading_directions(state, 2, polar=True)
    (left.square().sum() + right[0].sum()).backward()
    assert bool(torch.isfinite(state.grad).all())
