"""The gauge of LoRA: one pair of factors for each update, out of the many that multiply to it."""

from __future__ import annotations

import torch

from hypergen._utils.errors import WeightsError
from hypergen.specs import LoRASpec, Weights
from hypergen.specs.merging import balance, pairs_by_group


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
    for (of_a, of_b), rows in pairs_by_group(spec).items():
        a, b, _ = torch.tensor(rows, device=weights.device).unbind(1)
        groups[of_a][:, a], groups[of_b][:, b] = balance(
            weights.groups[of_a][:, a], weights.groups[of_b][:, b]
        )
    return Weights(spec, groups, expected_gain=weights.expected_gain, provenance=weights.provenance)
