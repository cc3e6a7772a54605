"""Whether demonstrations agree with one another, as a few numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SIGNALS = ("contradiction", "agreement", "alignment", "size")

_POWER = 16  # inputs count as the same from a cosine of about 0.95 on: 0.95 ** 16 = 0.44
_TEMPERATURE = 0.1  # of the nearest neighbours' weights


def consistency(inputs: Tensor, outputs: Tensor, mask: Tensor) -> Tensor:
    """Numbers that fall or rise when demonstrations contradict each other.

    - `contradiction`, 0 to 1: mean over the demonstrations of the worst conflict with another one,
      cosine(inputs) ** 16 · (1 - cosine(outputs)): the same input with another output.
    - `agreement`, -1 to 1: how much more alike the outputs of similar inputs are than those of any
      inputs. Leave-one-out nearest neighbours, softly: mean over i of Σ_j w_ij cos(out_i, out_j),
      once with w = softmax(cos(in_i, in_j) / 0.1) over j ≠ i and once with equal weights; their
      difference. Shuffled labels bring it to about 0.
    - `alignment`, -2 to 2: cosine of an input to its own output less its mean cosine to the others'
      outputs. Where outputs speak of their inputs (translation, extraction), shuffling brings it to
      about 0.
    - `size`: k / (k + 4) for k demonstrations.

    All are 0 without demonstrations, all but the last with a single one. They see what the vectors
    see: outputs that are wrong in the same way throughout are consistent.

    Args:
        inputs: `[B, K, D]` vectors of inputs.
        outputs: `[B, K, D]` vectors of outputs.
        mask: `[B, K]` bool, which are there.

    Returns:
        `[B, 4]`, in the order of `SIGNALS`.
    """
    left, right = F.normalize(inputs, dim=-1), F.normalize(outputs, dim=-1)
    near = left @ left.transpose(1, 2)
    alike = right @ right.transpose(1, 2)
    across = left @ right.transpose(1, 2)
    others = mask[:, :, None] & mask[:, None] & ~torch.eye(mask.shape[1], dtype=torch.bool).to(mask)
    count = mask.sum(1)
    rest = others.sum(2).clamp(min=1)

    conflict = near.clamp(min=0) ** _POWER * (1 - alike).clamp(0, 1)
    contradiction = conflict.masked_fill(~others, 0).amax(2)

    # Rows without another demonstration get no weight at all, instead of NaN.
    weight = (near / _TEMPERATURE).masked_fill(~others, torch.finfo(near.dtype).min).softmax(2)
    weight = weight.masked_fill(~others, 0)
    even = alike.masked_fill(~others, 0).sum(2) / rest
    agreement = (weight * alike).sum(2) - even

    own = across.diagonal(dim1=1, dim2=2)
    alignment = own - across.masked_fill(~others, 0).sum(2) / rest

    alone = (count < 2)[:, None] | ~mask
    each = torch.stack([contradiction, agreement, alignment], 2).masked_fill(alone[..., None], 0)
    means = each.sum(1) / count.clamp(min=1)[:, None]
    return torch.cat([means, (count / (count + 4))[:, None].to(means)], 1)
