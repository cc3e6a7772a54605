"""How well networks are explained as mixtures of training networks, from inner products alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_JITTER = 1e-9  # of the mean squared norm: what makes a singular Gram matrix invertible


def centred(training: Tensor, products: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Moves the origin of inner products to the mean of the training networks.

    Args:
        training: `[T, T]` products of training networks.
        products: `[N, T]` products of networks with training networks.
        squares: `[N]` squared norms of the networks.

    Returns:
        The same three.
    """
    column, own = training.mean(1), products.mean(1)
    mean = column.mean()
    return (
        training - column[:, None] - column[None] + mean,
        products - own[:, None] - column[None] + mean,
        squares - 2 * own + mean,
    )


def affine_residual(training: Tensor, products: Tensor, squares: Tensor) -> Tensor:
    """Distance of networks to the affine hull of the training networks.

    Args:
        training: `[T, T]` centred products, see `centred`.
        products: `[N, T]`.
        squares: `[N]`.

    Returns:
        `[N]` distances.
    """
    jitter = _JITTER * training.diagonal().mean()
    factor = torch.linalg.cholesky(training + jitter * torch.eye(len(training)).to(training))
    solved = torch.cholesky_solve(products.T, factor)
    return (squares - (products.T * solved).sum(0)).clamp(min=0).sqrt()


def convex_residual(
    training: Tensor,
    products: Tensor,
    squares: Tensor,
    atoms: int = 16,
    rounds: int = 32,
    steps: int = 15,
) -> Tensor:
    """Distance of networks to the best convex combination of a few training networks.

    Fully corrective Frank–Wolfe (Jaggi, "Revisiting Frank-Wolfe", ICML 2013) for all networks at
    once: the training network that lowers the distance fastest joins, then the weights of all that
    joined are set anew by least squares on the simplex (accelerated projected gradient). Twice as
    many as allowed may join; at the end those of largest weight stay. The best set of atoms is a
    combinatorial problem; this finds the exact one where a network is a mean of some.

    Args:
        training: `[T, T]` products.
        products: `[N, T]`.
        squares: `[N]`.
        atoms: Most training networks in a combination.
        rounds: How often one joins.
        steps: Steps of each least-squares problem.

    Returns:
        `[N]` distances.
    """
    total = products.shape[1]
    atoms = min(atoms, total)
    room = min(2 * atoms, total)
    nearest = (training.diagonal()[None] - 2 * products).argmin(1)
    active = nearest[:, None].repeat(1, room)
    weights = F.one_hot(torch.zeros_like(nearest), room).to(products)
    table, wanted = training.float(), products.float()
    for _ in range(rounds):
        gradient = (
            F.embedding_bag(active, table, per_sample_weights=weights.float(), mode="sum") - wanted
        )
        # One that joined already would only take up another place.
        joined = torch.where(weights > 0, torch.inf, -torch.inf).to(gradient)
        gradient.scatter_reduce_(1, active, joined, "amax")
        steepest, joining = gradient.min(1, keepdim=True)
        least, free = weights.min(1, keepdim=True)
        joins = (least <= 0) & steepest.isfinite()  # a place is free, and not all have joined
        active.scatter_(1, free, torch.where(joins, joining, active.gather(1, free)))
        used = (weights > 0).scatter(1, free, joins | (least > 0))
        weights = _simplex_fit(training, products, active, weights, used, steps)
    top = weights.topk(atoms, dim=1)
    active, weights = active.gather(1, top.indices), top.values
    weights = _simplex_fit(training, products, active, weights, weights > 0, 10 * steps)
    inner = training[active[:, :, None], active[:, None]]
    fitted = torch.einsum("ni,nij,nj->n", weights, inner, weights)
    cross = (weights * products.gather(1, active)).sum(1)
    return (squares - 2 * cross + fitted).clamp(min=0).sqrt()


def _simplex_fit(
    training: Tensor,
    products: Tensor,
    active: Tensor,
    weights: Tensor,
    used: Tensor,
    steps: int,
) -> Tensor:
    """Least squares on the simplex from a start, `[N, K]`: FISTA with restarts.

    Places that are not `used` keep the weight 0.
    """
    inner = training[active[:, :, None], active[:, None]]  # [N, K, K]
    wanted = products.gather(1, active)
    rate = 1 / inner.abs().sum(2).amax(1, keepdim=True).clamp(min=1e-300)
    bar = torch.where(used, 0.0, -torch.inf).to(weights)
    weights = onto_simplex(weights + bar)
    point, momentum = weights, torch.ones(len(weights), 1).to(weights)
    for _ in range(steps):
        gradient = torch.bmm(inner, point[..., None])[..., 0] - wanted
        new = onto_simplex(point - rate * gradient + bar)
        following = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        # Momentum that points uphill is dropped (O'Donoghue and Candès, 2015).
        uphill = (gradient * (new - weights)).sum(1, keepdim=True) > 0
        following = torch.where(uphill, 1.0, following)
        point = new + torch.where(uphill, 0.0, (momentum - 1) / following) * (new - weights)
        weights, momentum = new, following
    return weights


def onto_simplex(values: Tensor) -> Tensor:
    """Euclidean projection of rows `[N, K]` onto the simplex (Duchi et al., ICML 2008).

    Entries of -inf stay out of it and become 0.
    """
    ordered = values.sort(1, descending=True).values
    total = ordered.cumsum(1) - 1
    number = torch.arange(1, values.shape[1] + 1).to(values)
    last = (ordered * number > total).sum(1, keepdim=True)
    return (values - total.gather(1, last - 1) / last).clamp(min=0)
