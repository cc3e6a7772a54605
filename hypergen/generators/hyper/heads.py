"""Features → numbers of every slot, in few matrix products."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.generators.hyper.inits import (
    HeadInit,
    check_init,
    group_stds,
    head_std,
    normal_rows,
    output_scale,
    start_offset,
)
from hypergen.specs import Group, Weights, WeightSpec


class FlatHead(nn.Module):
    """One feature vector → all numbers, one matrix product a group.

    Parameters: (features + 1) · numel. The right head for small targets. Groups have products of
    their own so that each result is one contiguous tensor, whose gradient needs no assembling.

    Args:
        spec: What to emit.
        features: Width of the features, which should have mean square 1.
        init: See `hypergen.generators.hyper.inits`.
    """

    def __init__(self, spec: WeightSpec, features: int, init: HeadInit = "theta0") -> None:
        super().__init__()
        check_init(init)
        self.spec = spec
        self.weights = nn.ParameterList()
        for group in spec.groups:
            slots = spec.slots[group.start : group.stop]
            stds = torch.tensor([head_std(slot, init, features) for slot in slots])
            rows = stds.repeat_interleave(group.slot_numel)
            self.weights.append(nn.Parameter(normal_rows(rows, features)))
        self.offset = nn.Parameter(start_offset(spec, init))
        scales = torch.tensor([output_scale(slot, init) for slot in spec])
        self.register_buffer("scale", scales)
        self.scale: Tensor
        # Multiplying by one would cost a pass over the whole output.
        self._unit_scale = bool((scales == 1).all())

    def forward(self, features: Tensor) -> Weights:
        """`[B, features]` → weights of batch size B."""
        groups = []
        offsets = self.offset.split([group.numel for group in self.spec.groups])
        for group, weight, offset in zip(self.spec.groups, self.weights, offsets, strict=True):
            if self._unit_scale:
                out = torch.addmm(offset, features, weight.T)
            else:
                scale = self.scale[group.start : group.stop].repeat_interleave(group.slot_numel)
                out = torch.addcmul(offset, features @ weight.T, scale)
            groups.append(out.unflatten(1, (len(group), *group.shape)))
        return Weights(self.spec, groups)


@dataclass(frozen=True)
class Rows:
    """How the slots of one group are cut into rows, each emitted by one query.

    Attributes:
        group: The group.
        axis: Axis of the slot along which rows are taken: 0, or the last for B of LoRA.
        count: Number of tokens of a slot.
        per_token: Rows that one token emits.
        width: Numbers that one token emits.
    """

    group: Group
    axis: int
    count: int
    per_token: int
    width: int

    @staticmethod
    def of(group: Group, most: int) -> Rows:
        """Cuts a group into at most `most` tokens a slot."""
        if len(group.shape) < 2:
            return Rows(group, 0, 1, 1, group.slot_numel)
        axis = -1 if group.role in ("lora_B", "adapter_up") else 0
        rows = group.shape[axis]
        per_token = math.ceil(rows / most)
        return Rows(
            group,
            axis,
            math.ceil(rows / per_token),
            per_token,
            per_token * (group.slot_numel // rows),
        )

    def assemble(self, tokens: Tensor) -> Tensor:
        """`[B, len(group), count, width]` → `[B, len(group), *shape]`."""
        shape = self.group.shape
        if len(shape) < 2:
            return tokens.reshape(*tokens.shape[:2], *shape)
        rows = shape[self.axis]
        out = tokens.reshape(*tokens.shape[:2], self.count * self.per_token, -1)[:, :, :rows]
        if self.axis == -1:
            return out.transpose(-1, -2).reshape(*tokens.shape[:2], *shape)
        return out.reshape(*tokens.shape[:2], *shape)

    def cut(self, slots: Tensor) -> Tensor:
        """`[B, len(group), *shape]` → `[B, len(group), count, width]`, the inverse of `assemble`.

        Where the rows do not divide evenly, the last token ends in zeros.
        """
        if len(self.group.shape) < 2:
            return slots.reshape(*slots.shape[:2], 1, -1)
        rows = slots.flatten(2, -2).mT if self.axis == -1 else slots.flatten(3)
        missing = self.count * self.per_token - rows.shape[2]
        if missing:
            rows = nn.functional.pad(rows, (0, 0, 0, missing))
        return rows.reshape(*rows.shape[:2], self.count, self.width)


class RowHeads(nn.Module):
    """One feature vector for each row of each slot → all numbers, one batched product a group.

    Args:
        spec: What to emit.
        features: Width of the features, which should have mean square 1.
        most_rows: Most tokens a slot is cut into; larger slots emit several rows a token.
        share: `"group"`: slots of a group share one head (parameters independent of depth);
            `"slot"`: each slot has its own; `"row"`: each row of each slot has its own.
        init: See `hypergen.generators.hyper.inits`.
    """

    def __init__(
        self,
        spec: WeightSpec,
        features: int,
        most_rows: int = 16,
        share: Literal["group", "slot", "row"] = "group",
        init: HeadInit = "theta0",
    ) -> None:
        super().__init__()
        check_init(init)
        if share not in ("group", "slot", "row"):
            raise SpecError(f"heads are shared by group, slot or row, not {share!r}")
        self.spec, self.features = spec, features
        self.rows = tuple(Rows.of(group, most_rows) for group in spec.groups)
        self.weights = nn.ParameterList()
        scales = []
        for rows in self.rows:
            slots = spec.slots[rows.group.start : rows.group.stop]
            own = {"group": (1, 1), "slot": (len(slots), 1), "row": (len(slots), rows.count)}[share]
            std, factors = group_stds(slots, init, features)
            self.weights.append(nn.Parameter(torch.randn(*own, features, rows.width) * std))
            scales += factors
        self.offset = nn.Parameter(start_offset(spec, init))
        self.register_buffer("scale", torch.tensor(scales))
        self.scale: Tensor

    @property
    def queries(self) -> int:
        """Number of feature vectors that `forward` takes for one network."""
        return sum(len(rows.group) * rows.count for rows in self.rows)

    def query_index(self) -> Tensor:
        """`[queries, 3]`: slot, row token within the slot, group."""
        out = []
        for g, rows in enumerate(self.rows):
            for slot in range(rows.group.start, rows.group.stop):
                out += [(slot, token, g) for token in range(rows.count)]
        return torch.tensor(out)

    def forward(self, features: Tensor) -> Weights:
        """`[B, queries, features]` → weights of batch size B."""
        groups, start = [], 0
        offsets = self.spec.split(self.offset[None])
        for rows, weight, offset in zip(self.rows, self.weights, offsets, strict=True):
            group = rows.group
            stop = start + len(group) * rows.count
            part = features[:, start:stop].unflatten(1, (len(group), rows.count))
            if weight.shape[:2] == (1, 1):
                tokens = part @ weight[0, 0]
            elif weight.shape[1] == 1:
                tokens = torch.einsum("bstd,sdw->bstw", part, weight[:, 0])
            else:
                tokens = torch.einsum("bstd,stdw->bstw", part, weight)
            scale = self.scale[group.start : group.stop].view(-1, *[1] * len(group.shape))
            groups.append(torch.addcmul(offset, rows.assemble(tokens), scale))
            start = stop
        return Weights(self.spec, groups)
