"""The gauge of LoRA: one pair of factors for each update, out of the many that multiply to it."""

from __future__ import annotations

import torch
from torch import Tensor

from hypergen._utils.errors import WeightsError
from hypergen.specs import LoRASpec, Weights


@torch.no_grad()
def canonicalize_lora(weights: Weights) -> Weights:
    """Rewrites each LoRA pair as the balanced singular value decomposition of its update.

    B·A stays the same under (B M⁻¹, M A) for any invertible M, so factors of equal updates can be
    arbitrarily far apart. Here B·A = U S Vᵀ becomes B = U √S and A = √S Vᵀ: components are sorted
    by singular value, the entry of largest size in each row of A is positive, and components below
    the precision of the numbers are zero, so that padded ranks stay at the end and an update that
    is zero gets zero factors. A second call changes nothing beyond rounding. The decomposition is
    that of the r × r product of the triangular factors of B and Aᵀ; B·A is never formed.

    Where singular values are equal, as in updates made by hand, the components of that value are
    one of several choices.

    Args:
        weights: LoRAs; updates that are exactly zero and deficient ranks are fine.

    Returns:
        LoRAs of the same updates, in the same dtype, with score and provenance kept.

    Raises:
        WeightsError: The weights are no LoRAs, or hold NaN or infinity; names the slot.
    """
    spec = weights.spec
    if not isinstance(spec, LoRASpec):
        raise WeightsError(f"{type(spec).__name__} is not LoRA: only LoRA pairs have this gauge")
    weights.check_finite()
    groups = [torch.empty_like(tensor) for tensor in weights.groups]
    for (of_a, of_b), pairs in _pairs(spec).items():
        a, b = (torch.tensor(column, device=weights.device) for column in zip(*pairs, strict=True))
        groups[of_a][:, a], groups[of_b][:, b] = balance(
            weights.groups[of_a][:, a], weights.groups[of_b][:, b]
        )
    return Weights(spec, groups, expected_gain=weights.expected_gain, provenance=weights.provenance)


def balance(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Balances pairs of factors; see `canonicalize_lora`.

    Args:
        a: `[..., r, in]`.
        b: `[..., out, r]`.

    Returns:
        Factors of the same shapes, dtype and product.
    """
    q_b, r_b = torch.linalg.qr(b.double())
    q_a, r_a = torch.linalg.qr(a.double().mT)
    u, s, vh = torch.linalg.svd(r_b @ r_a.mT, full_matrices=False)
    # What is left of a component at rounding level would come back as its square root.
    s = torch.where(s > torch.finfo(torch.float32).eps * s[..., :1], s, 0.0)
    root = s.sqrt()
    new_a = root[..., None] * (vh @ q_a.mT)
    new_b = q_b @ u * root[..., None, :]
    peak = new_a.gather(-1, new_a.abs().argmax(-1, keepdim=True))
    sign = torch.where(peak < 0, -1.0, 1.0)
    # Ranks above the smaller side of the matrix have no component.
    missing = a.shape[-2] - s.shape[-1]
    new_a = torch.nn.functional.pad(new_a * sign, (0, 0, 0, missing))
    new_b = torch.nn.functional.pad(new_b * sign.mT, (0, missing))
    return new_a.to(a.dtype), new_b.to(b.dtype)


def _pairs(spec: LoRASpec) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Modules by the groups of A and B: (group of A, group of B) → positions within the two."""
    out: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for module in spec.modules:
        (group_a, a), (group_b, b) = (spec.location[name] for name in spec.pair_names(module))
        out.setdefault((group_a, group_b), []).append((a, b))
    return out
