"""Merging trained weights into one: linear mixes, TIES, DARE, and mixes of LoRA updates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hypergen._utils.errors import WeightsError
from hypergen._utils.seeding import generator as seeded
from hypergen.specs.full import DeltaSpec
from hypergen.specs.lora import LoRASpec, concatenate_ranks
from hypergen.specs.weights import Weights


def task_arithmetic(
    weights: Weights,
    coefficients: float | Sequence[float] | Tensor | None = None,
    *,
    base: Weights | None = None,
) -> Weights:
    """Base + Σ_e c_e · (weights_e - base), entry by entry.

    Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv:2212.04089. For LoRA
    the factors A and B are added, as PEFT's `linear` does; `mix_updates` adds the updates.

    Args:
        weights: `E` networks.
        coefficients: One for each network, or one for all; 1 / E when not given (their mean).
            Negative ones subtract.
        base: One network that the others were trained from; zero when not given, which fits
            additive specs.

    Returns:
        One network.
    """
    count = len(weights)
    if coefficients is None:
        coefficients = 1 / count
    if isinstance(coefficients, int | float):
        coefficients = [float(coefficients)] * count
    factors = torch.as_tensor(coefficients, device=weights.device, dtype=weights.dtype)
    if factors.shape != (count,):
        raise WeightsError(f"{count} networks need as many coefficients, not {factors.numel()}")
    return _moved(weights, factors @ _task_vectors(weights, base), base)


def ties(
    weights: Weights, density: float = 0.2, scale: float = 1.0, *, base: Weights | None = None
) -> Weights:
    """Merges networks after trimming small changes and settling each entry's sign.

    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023,
    arXiv:2306.01708. Of each network the `density` largest changes stay; the sign of an entry is
    that of their sum over the networks; the result is the mean of the changes of that sign, times
    `scale`. An entry whose changes sum to exactly zero does not change.

    Args:
        weights: `E` networks.
        density: Share of each network's changes that stays, in (0, 1].
        scale: Factor of the merged change (λ of the paper).
        base: What changes are counted from; zero when not given.

    Returns:
        One network.

    Raises:
        WeightsError: `density` is out of range.
    """
    if not 0 < density <= 1:
        raise WeightsError(f"density must be above 0 and at most 1, not {density}")
    changes = _task_vectors(weights, base)
    kept = max(1, round(density * changes.shape[1]))
    top = changes.abs().topk(kept, dim=1).indices
    trimmed = torch.zeros_like(changes).scatter(1, top, changes.gather(1, top))
    sign = trimmed.sum(0).sign()
    agreed = (trimmed.sign() == sign) & (sign != 0)
    mean = (trimmed * agreed).sum(0) / agreed.sum(0).clamp(min=1)
    return _moved(weights, scale * mean, base)


def dare(
    weights: Weights, drop: float = 0.9, seed: int = 0, *, base: Weights | None = None
) -> Weights:
    """Drops random changes of each network and scales the others up: the mean change stays.

    Yu et al., "Language Models are Super Mario", ICML 2024, arXiv:2311.03099: a step before
    `task_arithmetic` or `ties`, which then merge what is left.

    Args:
        weights: `E` networks.
        drop: Probability that a change is dropped, in [0, 1); the others are divided by 1 - drop.
        seed: Seed; network number e draws by (seed, e) alone.
        base: What changes are counted from; zero when not given.

    Returns:
        `E` networks.

    Raises:
        WeightsError: `drop` is out of range.
    """
    if not 0 <= drop < 1:
        raise WeightsError(f"drop must be at least 0 and below 1, not {drop}")
    changes = _task_vectors(weights, base)
    draws = [
        torch.rand(weights.spec.numel, generator=seeded("dare", seed, e))
        for e in range(len(weights))
    ]
    kept = (torch.stack(draws) >= drop).to(changes.device)
    return _moved(weights, changes * kept / (1 - drop), base)


def mix_slots(weights: Weights, coefficients: Tensor) -> Weights:
    """Linear combinations with coefficients of their own for each slot, differentiable.

    Args:
        weights: `E` networks.
        coefficients: `[C, len(spec), E]`, in the order of the slots.

    Returns:
        `C` networks.

    Raises:
        WeightsError: The coefficients have another shape.
    """
    spec = weights.spec
    if coefficients.dim() != 3 or coefficients.shape[1:] != (len(spec), len(weights)):
        raise WeightsError(
            f"coefficients have shape {list(coefficients.shape)}, expected [C, {len(spec)}, "
            f"{len(weights)}]"
        )
    groups = []
    for group, stored in zip(spec.groups, weights.groups, strict=True):
        own = coefficients[:, group.start : group.stop].transpose(0, 1)  # [slots, C, E]
        rows = stored.reshape(len(weights), len(group), -1).transpose(0, 1)  # [slots, E, numel]
        mixed = own @ rows
        groups.append(mixed.transpose(0, 1).reshape(-1, len(group), *group.shape))
    return Weights(spec, groups)


def exact_mix(weights: Weights, coefficients: Sequence[float] | None = None) -> Weights:
    """One network whose update is exactly Σ_e c_e · ΔW_e, the mixture of the networks' updates.

    The ranks of LoRAs are concatenated: of E networks of rank r one of rank E · r comes out, again
    of one rank and alpha for all modules where they had one, as servers want it. Adding A and B
    entry by entry would mix in products of one network's A with another's B, and cutting the rank
    back to r (`mix_updates`) is an approximation. Differences (`DeltaSpec`) are added.

    Args:
        weights: `E` networks.
        coefficients: One for each network, used as they are (they need not sum to 1; negative ones
            subtract); 1 / E when not given.

    Returns:
        One network, without an expected gain.

    Raises:
        WeightsError: No updates of a base that add up, or another number of coefficients.
    """
    count = len(weights)
    coefficients = [1 / count] * count if coefficients is None else list(coefficients)
    if len(coefficients) != count:
        raise WeightsError(f"{count} networks need as many coefficients, not {len(coefficients)}")
    if isinstance(weights.spec, LoRASpec):
        out = concatenate_ranks(list(weights), coefficients)
    elif isinstance(weights.spec, DeltaSpec):
        out = weights.mix(torch.tensor(coefficients))
    else:
        raise WeightsError(
            f"{type(weights.spec).__name__} holds no updates that add up: LoRA and DeltaSpec do"
        )
    out.provenance = {**weights.provenance, "mix": coefficients}
    return out


@torch.no_grad()
def mix_updates(weights: Weights, coefficients: Tensor, index: Tensor | None = None) -> Weights:
    """Linear combinations of LoRA updates, cut back to the rank of the spec.

    Σ_k c_k · ΔW_k is a product of concatenated factors of rank K · r (`concatenate_ranks`); the
    singular value decomposition of the product of their triangular factors gives its best
    approximation of rank r. ΔW is never formed. A mix of one network is that network's update up to
    rounding. Not differentiable: singular vectors have no gradient where singular values meet.

    Args:
        weights: `E` LoRAs of one spec.
        coefficients: `[C, K]`, or `[C, modules, K]` for each module in the order of
            `spec.modules`.
        index: Which networks they belong to, of the same shape; without it K is E, all of them.

    Returns:
        `C` LoRAs with balanced factors: singular values are shared evenly between A and B.

    Raises:
        WeightsError: The weights are no LoRAs, or the shapes do not fit.
    """
    spec = weights.spec
    if not isinstance(spec, LoRASpec):
        raise WeightsError(f"{type(spec).__name__} is not LoRA: only LoRA updates have this mix")
    if index is None:
        index = torch.arange(len(weights), device=weights.device).expand(coefficients.shape)
    if index.shape != coefficients.shape or coefficients.dim() not in (2, 3):
        raise WeightsError(
            f"coefficients have shape {list(coefficients.shape)} and index {list(index.shape)}: "
            "both must be [C, K] or [C, modules, K]"
        )
    if coefficients.dim() == 2:
        coefficients, index = (
            x[:, None].expand(-1, len(spec.modules), -1) for x in (coefficients, index)
        )
    groups = [t.new_empty(len(coefficients), *t.shape[1:]) for t in weights.groups]
    for (of_a, of_b), rows in pairs_by_group(spec).items():
        a_at, b_at, module = torch.tensor(rows, device=weights.device).unbind(1)
        chosen, factor = index[:, module], coefficients[:, module].double()
        a = weights.groups[of_a][chosen, a_at[:, None]].double()  # [C, m, K, r, in]
        b = weights.groups[of_b][chosen, b_at[:, None]].double()  # [C, m, K, out, r]
        b = b * factor[..., None, None]
        new_a, new_b = balance(a.flatten(2, 3), b.transpose(2, 3).flatten(3), a.shape[-2])
        groups[of_a][:, a_at] = new_a.to(weights.dtype)
        groups[of_b][:, b_at] = new_b.to(weights.dtype)
    return Weights(spec, groups)


def pairs_by_group(spec: LoRASpec) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """Modules whose A and B lie in the same two groups, so that they are computed together.

    Returns:
        (group of A, group of B) → for each module its positions in the two groups, and its
        number in `spec.modules`.
    """
    out: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for number, module in enumerate(spec.modules):
        (group_a, a), (group_b, b) = (spec.location[name] for name in spec.pair_names(module))
        out.setdefault((group_a, group_b), []).append((a, b, number))
    return out


def balance(a: Tensor, b: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """Factors of b @ a by its singular value decomposition, which is never formed.

    The singular values, sorted, are split evenly; the entry of largest size in each row of the
    first factor is positive; components at the level of rounding are zero.

    Args:
        a: `[..., R, in]`.
        b: `[..., out, R]`.
        rank: Components that are kept, the largest first; R when not given.

    Returns:
        `[..., rank, in]` and `[..., out, rank]`, in the dtypes of `a` and `b`.
    """
    rank = a.shape[-2] if rank is None else rank
    q_b, r_b = torch.linalg.qr(b.double())
    q_a, r_a = torch.linalg.qr(a.double().mT)
    u, s, vh = torch.linalg.svd(r_b @ r_a.mT, full_matrices=False)
    # What is left of a component at rounding level would come back as its square root.
    s = torch.where(s > torch.finfo(torch.float32).eps * s[..., :1], s, 0.0)[..., :rank]
    root = s.sqrt()
    new_a = root[..., None] * (vh[..., :rank, :] @ q_a.mT)
    new_b = (q_b @ u[..., :rank]) * root[..., None, :]
    peak = new_a.gather(-1, new_a.abs().argmax(-1, keepdim=True))
    sign = torch.where(peak < 0, -1.0, 1.0)
    missing = rank - s.shape[-1]  # a rank above the smaller side of the matrix
    new_a = torch.nn.functional.pad(new_a * sign, (0, 0, 0, missing))
    new_b = torch.nn.functional.pad(new_b * sign.mT, (0, missing))
    return new_a.to(a.dtype), new_b.to(b.dtype)


def _task_vectors(weights: Weights, base: Weights | None) -> Tensor:
    """`[E, numel]`: what each network adds to the base."""
    if base is None:
        return weights.flat()
    if len(base) != 1 or base.spec != weights.spec:
        raise WeightsError("the base must be one network of the same spec")
    return weights.flat() - base.flat()


def _moved(weights: Weights, change: Tensor, base: Weights | None) -> Weights:
    return weights.spec.from_flat(change if base is None else base.flat() + change)
