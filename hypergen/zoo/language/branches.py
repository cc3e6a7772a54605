"""Texts that begin alike, laid out as a tree in one sequence.

A story, its questions and their options are a tree: every option follows its question, every
question the story. In one sequence with a mask, each token sees what comes before it on its own
path, at the positions that it would have alone, so that whatever several texts share is read once.
Rows of one path each give the same numbers to networks that take no such mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import UsageError
from hypergen.zoo.language.tokens import IGNORED


@dataclass(frozen=True)
class Branch:
    """A part of a text.

    Attributes:
        tokens: Its tokens, at least one.
        parent: Number, in its tree, of the branch that it follows; -1 where it begins a text.
        labels: How many of its last tokens are predicted. The first token of a text cannot be.
    """

    tokens: Sequence[int]
    parent: int = -1
    labels: int = 0


Tree = Sequence[Branch]  # parents come before their children


@dataclass(frozen=True, eq=False)
class Laid:
    """Trees as a batch, on the CPU.

    Attributes:
        inputs: Of a network that takes `answer_positions` (see `hypergen.zoo.language.answers`).
        labels: `[N, K]`, the tokens to predict, in the order of the branches; padded by `IGNORED`.
        owner: `[N, K]`, which of all branches with labels (of all trees, in their order) each label
            is of; 0 in the padding.
        branches: Number of these branches.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    owner: Tensor
    branches: int

    @property
    def real(self) -> Tensor:
        """`[N, K]`, which labels are none of the padding."""
        return self.labels != IGNORED

    @property
    def counts(self) -> Tensor:
        """`[branches]`, labels of each branch."""
        return torch.bincount(self.owner[self.real], minlength=self.branches)

    @torch.no_grad()
    def log_likelihoods(self, logits: Tensor) -> Tensor:
        """Summed log-likelihood of each branch's labels, `[branches]`.

        Args:
            logits: `[N, K, V]`, what the network returns for `inputs`.
        """
        real = self.real
        losses = F.cross_entropy(
            logits[real.to(logits.device)].float(),
            self.labels[real].to(logits.device),
            reduction="none",
        )
        zeros = torch.zeros(self.branches, dtype=torch.float64)
        return zeros.index_add(0, self.owner[real], -losses.double().cpu())


def paths(trees: Sequence[Tree]) -> list[Tree]:
    """A tree of one branch for each branch with labels: the whole text up to its end."""
    out: list[Tree] = []
    for tree in trees:
        texts: list[list[int]] = []
        for branch in tree:
            before = texts[branch.parent] if branch.parent >= 0 else []
            texts.append([*before, *branch.tokens])
            if branch.labels:
                out.append([Branch(texts[-1], labels=branch.labels)])
    return out


def lay_out(trees: Sequence[Tree], pad: int, dtype: torch.dtype, most: int | None = None) -> Laid:
    """Lays trees out, a row for each.

    Trees of one branch need no mask of their own: any target takes them.

    Args:
        trees: At least one, each with at least one label.
        pad: Filling of the rows.
        dtype: Dtype of the mask, that of the network.
        most: Most tokens of a path.

    Raises:
        UsageError: A path is longer than `most`.
        ValueError: A label has nothing before it.
    """
    branches = [branch for tree in trees for branch in tree]
    sizes = torch.tensor([len(tree) for tree in trees])
    tree_of = torch.repeat_interleave(torch.arange(len(trees)), sizes)
    first = (sizes.cumsum(0) - sizes)[tree_of]  # number of the tree's first branch
    local = torch.arange(len(branches)) - first
    parent = torch.tensor([branch.parent for branch in branches])
    parent = torch.where(parent < 0, -1, parent + first)
    length = torch.tensor([len(branch.tokens) for branch in branches])
    labels = torch.tensor([branch.labels for branch in branches])
    if bool(((labels == length) & (parent < 0)).any()) or bool((labels > length).any()):
        raise ValueError("the first token of a text has nothing that it could be predicted from")
    total = length.cumsum(0)
    start = total - length - (total - length)[first]  # column of each branch's first token
    depth = _depths(parent.tolist(), length.tolist())  # position of each branch's first token
    longest = int((depth + length).max())
    if most is not None and longest > most:
        raise UsageError(f"a text has {longest} tokens, and the model takes {most}: shorten it")

    flat = torch.tensor([token for branch in branches for token in branch.tokens])
    branch = torch.repeat_interleave(torch.arange(len(branches)), length)
    within = torch.arange(len(flat)) - (total - length)[branch]
    row, column = tree_of[branch], start[branch] + within
    width = int(column.max()) + 1
    shape = (len(trees), width)
    ids = torch.full(shape, pad).index_put((row, column), flat)

    wanted = within >= (length - labels)[branch]
    before = torch.where(within > 0, column - 1, (start + length - 1)[parent.clamp(min=0)][branch])[
        wanted
    ]
    at, token, own = row[wanted], flat[wanted], branch[wanted]
    count = torch.bincount(at, minlength=len(trees))
    place = torch.arange(len(at)) - (count.cumsum(0) - count)[at]
    wide = (len(trees), int(count.max()))
    named = (labels > 0).long().cumsum(0) - 1  # numbers of the branches with labels
    inputs: dict[str, Tensor] = {
        "input_ids": ids,
        "answer_positions": torch.zeros(wide, dtype=torch.long).index_put((at, place), before)
        - width,
    }
    if len(branches) == len(trees):
        inputs["attention_mask"] = (torch.arange(width) < length[:, None]).long()
    else:
        padding = max(len(tree) for tree in trees)
        segment = torch.full(shape, padding).index_put((row, column), local[branch])
        sees = _ancestors(trees, padding)[
            torch.arange(len(trees))[:, None, None], segment[:, :, None], segment[:, None]
        ]
        sees &= torch.ones(width, width, dtype=torch.bool).tril()
        mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)
        inputs["attention_mask"] = mask[:, None]
        positions = torch.zeros(shape, dtype=torch.long)
        inputs["position_ids"] = positions.index_put((row, column), depth[branch] + within)
    return Laid(
        inputs,
        torch.full(wide, IGNORED).index_put((at, place), token),
        torch.zeros(wide, dtype=torch.long).index_put((at, place), named[own]),
        int((labels > 0).sum()),
    )


def _depths(parents: list[int], lengths: list[int]) -> Tensor:
    out: list[int] = []
    for parent in parents:
        out.append(0 if parent < 0 else out[parent] + lengths[parent])
    return torch.tensor(out)


def _ancestors(trees: Sequence[Tree], most: int) -> Tensor:
    """Which branches each one sees, itself too, `[T, most + 1, most + 1]`; the last is padding."""
    out: Any = np.zeros((len(trees), most + 1, most + 1), dtype=bool)
    out[:, most, most] = True
    for seen, tree in zip(out, trees, strict=True):
        for number, branch in enumerate(tree):
            if branch.parent >= 0:
                seen[number] |= seen[branch.parent]
            seen[number, number] = True
    return torch.from_numpy(out)
