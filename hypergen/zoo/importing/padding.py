"""LoRAs of different ranks and scalings in one shape.

A pair A `[r, in]`, B `[out, r]` with the scaling s (alpha / r, or alpha / sqrt(r) for rsLoRA)
becomes a pair of rank R ≥ r with the scaling S of the zoo's architecture: A gets R - r rows of
zeros, B as many columns, and B is multiplied by s / S. The update s · B · A stays what it was.
Architectures that an import makes have alpha = R, so S = 1 and B takes all of s.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import WeightsError, did_you_mean
from hypergen.specs import LoRASpec


def pad_pair(a: Tensor, b: Tensor, rank: int, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """Pads a pair with zeros and scales its B.

    Args:
        a: `[r, in]`.
        b: `[out, r]`.
        rank: Rank R to reach, at least r.
        factor: Factor of B.

    Returns:
        A `[R, in]` and B `[out, R]`; B in float32 at least, rounded once.
    """
    missing = rank - a.shape[0]
    wide = torch.promote_types(b.dtype, torch.float32)
    scaled = b.to(wide) if factor == 1 else (b.double() * factor).to(wide)
    return F.pad(a, (0, 0, 0, missing)), F.pad(scaled, (0, missing))


def rank_mask(spec: LoRASpec, ranks: Mapping[str, int]) -> Tensor:
    """Marks the numbers of a padded LoRA that are its own, not padding.

    Args:
        spec: The padded spec.
        ranks: Module → true rank, as `Row.ranks` holds them; modules that are left out are whole.

    Returns:
        `[numel]`, bool.

    Raises:
        WeightsError: A module that the spec lacks, or a rank above the spec's.
    """
    for module, rank in ranks.items():
        if module not in spec.modules:
            raise WeightsError(
                f"ranks name the module {module!r}, which the spec does not adapt."
                f"{did_you_mean(module, spec.modules)}"
            )
        if not 1 <= rank <= spec.rank(module):
            raise WeightsError(
                f"module {module!r} has the true rank {rank}; the spec holds 1 to "
                f"{spec.rank(module)}"
            )
    tensors = {slot.name: torch.ones(slot.shape, dtype=torch.bool) for slot in spec}
    for module, rank in ranks.items():
        name_a, name_b = spec.pair_names(module)
        tensors[name_a][rank:] = False
        tensors[name_b][:, rank:] = False
    return torch.cat([tensors[slot.name].flatten() for slot in spec])
