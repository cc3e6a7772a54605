"""Several samples behind one description, in one sequence.

Samples of one network share the description in their prompt. Behind one another, each sees the
description and itself alone, at the positions that it would have alone: the description is read
once, and short samples need no padding. Packed rows for language models: Krell et al., "Efficient
Sequence Packing without Cross-contamination", arXiv:2107.02027; here with a shared prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypergen.zoo.language.tokens import IGNORED, Ragged, join

if TYPE_CHECKING:
    from hypergen.zoo.language.causal import CausalSuite


def packed_batch(
    suite: CausalSuite,
    tasks: Tensor,
    rows: Tensor,
    split: str = "train",
    wordings: Tensor | None = None,
) -> dict[str, Any]:
    """Prompts with their answers, a network's samples in one sequence.

    Args:
        suite: Where tokens come from; the model must take a 4-D attention mask.
        tasks: `[B]` task numbers.
        rows: `[B, S]` instances.
        split: Split of the instances.
        wordings: `[B]`, number of the description; the first when not given, none where -1.

    Returns:
        `inputs` of B rows; `labels` `[B, K]`, the answer tokens of all samples, and the `samples`
        `[B, K]` that they belong to; `blocks` B; `rows` S.

    Raises:
        UsageError: A description leaves no room for an input.
    """
    count = rows.shape[1]
    bodies, answers, first = suite.table(split)
    heads, _ = suite.heads()
    number = first[tasks][:, None] + rows
    tail = torch.zeros_like(tasks)
    parts: list[tuple[Ragged, Tensor]] = [(heads, suite.head_rows(tasks, wordings)[:, 0])]
    shared = heads.lengths[parts[0][1]] + suite.tail.lengths[0]
    cuts = {}
    for sample in number.unbind(1):  # views of one index each; the tokens are gathered in `join`
        cuts[len(parts)] = suite.cut(
            bodies.lengths[sample], shared + answers.lengths[sample], tasks
        )
        parts += [(bodies, sample), (suite.tail, tail), (answers, sample)]
    ids, bounds = join(parts, suite.pad, cuts)
    length = ids.shape[1]
    place = torch.arange(length)
    begins, answers_at, ends = bounds[1:-1:3], bounds[3::3], bounds[4::3]  # [S, B] each
    # Number of the sample of each token: -1 in the description, S in the padding.
    segment = (place >= begins[..., None]).sum(0) - 1
    segment = torch.where(place < bounds[-1][:, None], segment, count)
    sees = (segment[:, :, None] == segment[:, None]) | (segment < 0)[:, None]
    sees &= place[:, None] >= place
    dtype = next(suite.network.parameters()).dtype
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)
    # Positions go on behind the description in every sample.
    own = begins.T.gather(1, segment.clamp(0, count - 1))
    position = torch.where(segment < 0, place, place - own + bounds[1][:, None])
    is_answer = ((place >= answers_at[..., None]) & (place < ends[..., None])).any(0)
    most = int(is_answer.sum(1).max())
    at = (
        (~is_answer).long().argsort(stable=True, dim=1)[:, :most]
    )  # the answer tokens, in their order
    real = is_answer.gather(1, at)
    return {
        "inputs": suite.to_device(
            {
                "input_ids": ids,
                "attention_mask": mask[:, None],
                "position_ids": position,
                # The logits that predict a token stand one position before it.
                "answer_positions": torch.where(real, at - 1, 0) - length,
            }
        ),
        "labels": ids.gather(1, at).masked_fill(~real, IGNORED).to(suite.device),
        "samples": segment.gather(1, at).clamp(0, count - 1).to(suite.device),
        "blocks": len(tasks),
        "rows": count,
    }


def packed_losses(losses: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Losses `[B, K]` of a packed batch's labels → summed loss and number of them, `[B, S]`."""
    zeros = losses.new_zeros(len(losses), batch["rows"])
    real = (batch["labels"] != IGNORED).to(losses.dtype)
    index = batch["samples"]
    return zeros.scatter_add(1, index, losses), zeros.scatter_add(1, index, real).long()
