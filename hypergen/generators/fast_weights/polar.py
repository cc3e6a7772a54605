"""The polar factor of a fast-weight state, whole or of its leading directions, differentiable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Smallest gap of eigenvalues (of mean one) that the gradient of a truncation divides by.
_GAP = 1e-6


def polar_factor(state: Tensor, epsilon: float = 1e-6) -> Tensor:
    """The nearest matrix with singular values one: UVᵀ of S = UΣVᵀ.

    Small singular values are noise, and polar factors amplify it, so they are filtered: with
    λ = σ² over its mean, σ becomes λ² / (λ² + ε²), which is 1 - ε²/λ² for λ ≫ ε and falls with the
    fourth power of σ below. A state of lower rank thus gives the partial isometry between its
    row and column spaces, and a state of zeros gives zeros.

    Computed as S f(SᵀS) on the smaller side, by one symmetric eigendecomposition without random
    numbers; the square is taken in float64, since it doubles the digits that small singular values
    need. The gradient (Daleckii and Krein) takes divided differences of f in closed form: it is
    finite where singular values are equal or zero.

    Args:
        state: `[..., k, v]`.
        epsilon: ε; a singular value of √ε times their root mean square becomes 1/2.

    Returns:
        `[..., k, v]`.
    """
    if state.shape[-2] < state.shape[-1]:
        return polar_factor(state.mT, epsilon).mT
    gram, size = _scaled_gram(state)
    # The state is divided, not the filter: where it is tiny, the filter alone would overflow.
    root = _Filter.apply(gram, epsilon).to(state.dtype)
    return (state / size.sqrt().to(state.dtype)) @ root


def leading_directions(
    state: Tensor, rank: int, epsilon: float = 1e-6, polar: bool = False
) -> tuple[Tensor, Tensor]:
    """Factors L and R of the part LRᵀ of a matrix in its largest singular values.

    R holds the leading right singular vectors, each with the sign that makes its largest entry
    positive, times λ² / (λ² + ε²) as in `polar_factor`: directions that the matrix has not, and
    that are arbitrary, vanish. LRᵀ is what is unique: within (nearly) equal singular values the two
    may turn together. Gradients are those of LRᵀ (turns within the leading directions carry none),
    divided by the gap to the directions left out, or by 1e-6 of the mean eigenvalue where it is
    smaller.

    Args:
        state: `[..., k, v]`.
        rank: Number q of directions, at most v.
        epsilon: ε.
        polar: Set the q singular values to one, as `polar_factor` does.

    Returns:
        L `[..., k, q]` and R `[..., v, q]`.
    """
    gram, size = _scaled_gram(state)
    filtered, right = _Leading.apply(gram, rank, epsilon, polar)
    left = state / size.sqrt().to(state.dtype) if polar else state
    return left @ filtered.to(state.dtype), right.to(state.dtype)


def _scaled_gram(state: Tensor) -> tuple[Tensor, Tensor]:
    """SᵀS over its mean eigenvalue, and that mean `[..., 1, 1]`; 1 where S is zero."""
    wide = state.float() if state.device.type == "mps" else state.double()  # mps has no float64
    gram = wide.mT @ wide
    size = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    size = torch.where(size > 0, size, torch.ones_like(size))
    return gram / size, size


def _roots(values: Tensor) -> Tensor:
    return values.clamp(min=0).sqrt()


def _spectrum(values: Tensor, epsilon: float) -> Tensor:
    """f(λ) = λ^(3/2) / (λ² + ε²): a regular λ^(-1/2)."""
    s = _roots(values)
    return s**3 / (s**4 + epsilon**2)


def _differences(values: Tensor, epsilon: float) -> Tensor:
    """(f(λᵢ) - f(λⱼ)) / (λᵢ - λⱼ), `[..., n, n]`, with λᵢ - λⱼ divided out by hand."""
    s = _roots(values)
    a, b = s[..., :, None], s[..., None, :]
    ab, square = a * b, epsilon**2
    over = square * (a * a + ab + b * b) - ab**3
    under = (a**4 + square) * (b**4 + square) * (a + b)
    return over / under.clamp(min=torch.finfo(values.dtype).tiny)


def _step(values: Tensor, epsilon: float) -> Tensor:
    """g(λ) = λ² / (λ² + ε²)."""
    square = values.clamp(min=0) ** 2
    return square / (square + epsilon**2)


def _step_differences(values: Tensor, epsilon: float) -> Tensor:
    """The same as `_differences`, of g."""
    values = values.clamp(min=0)
    a, b, square = values[..., :, None], values[..., None, :], epsilon**2
    out: Tensor = square * (a + b) / ((a * a + square) * (b * b + square))
    return out


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


class _Filter(torch.autograd.Function):
    """f(G) of a symmetric matrix."""

    @staticmethod
    def forward(ctx: Any, gram: Tensor, epsilon: float) -> Tensor:
        values, vectors = torch.linalg.eigh(gram)
        ctx.epsilon = epsilon
        ctx.save_for_backward(values, vectors)
        out: Tensor = (vectors * _spectrum(values, epsilon)[..., None, :]) @ vectors.mT
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        inner = vectors.mT @ _symmetric(grad) @ vectors
        return vectors @ (_differences(values, ctx.epsilon) * inner) @ vectors.mT, None


class _Leading(torch.autograd.Function):
    """V f(Λ) and V g(Λ) of the largest eigenvalues; f is 1 unless `polar`."""

    @staticmethod
    def forward(
        ctx: Any, gram: Tensor, rank: int, epsilon: float, polar: bool
    ) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(gram)
        largest = vectors.gather(-2, vectors.abs().argmax(-2, keepdim=True))
        vectors = vectors * torch.where(largest < 0, -1.0, 1.0).to(vectors.dtype)
        values, vectors = values.flip(-1), vectors.flip(-1)
        ctx.rank, ctx.epsilon, ctx.polar = rank, epsilon, polar
        ctx.save_for_backward(values, vectors)
        kept, top = vectors[..., :rank], values[..., :rank]
        factor = _spectrum(top, epsilon) if polar else torch.ones_like(top)
        return kept * factor[..., None, :], kept * _step(top, epsilon)[..., None, :]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, filtered: Tensor, right: Tensor) -> tuple[Tensor, None, None, None]:
        values, vectors = ctx.saved_tensors
        inside, outside = vectors[..., : ctx.rank], vectors[..., ctx.rank :]
        top, epsilon = values[..., : ctx.rank], ctx.epsilon
        # A step dG turns the kept directions out of their span by the first part, and changes f
        # and g within it by the second.
        gap = (top[..., None, :] - values[..., ctx.rank :, None]).clamp(min=_GAP)
        factor = _spectrum(top, epsilon)[..., None, :] if ctx.polar else 1.0
        turned = factor * (outside.mT @ filtered)
        turned = turned + _step(top, epsilon)[..., None, :] * (outside.mT @ right)
        change = _step_differences(top, epsilon) * _symmetric(inside.mT @ right)
        if ctx.polar:
            change = change + _differences(top, epsilon) * _symmetric(inside.mT @ filtered)
        out = (outside @ (turned / gap) + inside @ change) @ inside.mT
        return _symmetric(out), None, None, None
