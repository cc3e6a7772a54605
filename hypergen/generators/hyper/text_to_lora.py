"""Text-to-LoRA's three heads, for any spec."""

from __future__ import annotations

import re
from typing import Literal

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.base import Generator
from hypergen.generators.hyper.heads import Rows
from hypergen.generators.hyper.inits import (
    HeadInit,
    check_init,
    group_stds,
    start_offset,
)
from hypergen.generators.hyper.mlp import ResidualBlock
from hypergen.specs import Weights, WeightSpec


class TextToLoRA(Generator):
    """A trunk over (task, layer, module type), and heads of three sizes.

    Charakorn et al., "Text-to-LoRA: Instant Transformer Adaption", ICML 2025, arXiv:2506.06105.

    - `size="L"`: one feature vector a module; a linear head for each group of slots emits whole
      tensors (A and B of a LoRA at once).
    - `size="M"`: one feature vector a slot (module and kind, e.g. A or B); all slots share one
      head, cut to each slot's size.
    - `size="S"`: one feature vector a row of a slot (a rank of a LoRA); all rows share one head.

    The trunk runs once over all modules (or slots, or rows): its first layer is separable, W_t t +
    W_l l + W_m m, so that the task part is computed once. Order and indices come from the saved
    spec, never from a set. Slots are not restricted to LoRA's.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition; its pooled vector is used.
        size: `"L"`, `"M"` or `"S"`.
        hidden: Width of the trunk.
        depth: Residual blocks behind the mixing layer.
        dropout: Dropout inside the blocks.
        most_rows: `"S"`: most rows a slot is cut into; larger slots emit several a vector.
        init: Start of the generated weights, see `hypergen.generators.hyper.inits`.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        size: Literal["L", "M", "S"] = "L",
        hidden: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        most_rows: int = 64,
        init: HeadInit = "theta0",
    ) -> None:
        config = {
            "size": size,
            "hidden": hidden,
            "depth": depth,
            "dropout": dropout,
            "most_rows": most_rows,
            "init": init,
        }
        super().__init__(spec, encoder, config)
        check_init(init)
        if size not in ("L", "M", "S"):
            raise SpecError(f"size {size!r} is not one of L, M, S")
        self.size = size
        self.rows = tuple(Rows.of(g, most_rows if size == "S" else 1) for g in spec.groups)
        entities, index = self._entities()
        for name, column in zip(("layers", "kinds", "parts"), entities.T, strict=True):
            self.register_buffer(f"{name}_index", column.clone(), persistent=False)
        self.register_buffer("entity_index", index, persistent=False)
        self.layers_index: Tensor
        self.kinds_index: Tensor
        self.parts_index: Tensor
        self.entity_index: Tensor
        self.task = nn.Sequential(nn.Linear(encoder.dim, hidden // 2), nn.LayerNorm(hidden // 2))
        counts = [int(column.max()) + 1 for column in entities.T]
        self.layer_embedding = nn.Embedding(counts[0], hidden // 4)
        self.kind_embedding = nn.Embedding(counts[1], hidden // 4)
        self.part_embedding = nn.Embedding(counts[2], hidden)
        self.mix_task = nn.Linear(hidden // 2, hidden)
        self.mix_layer = nn.Linear(hidden // 4, hidden, bias=False)
        self.mix_kind = nn.Linear(hidden // 4, hidden, bias=False)
        self.trunk = nn.Sequential(
            nn.GELU(),
            *(ResidualBlock(hidden, dropout) for _ in range(depth)),
            nn.LayerNorm(hidden, elementwise_affine=False),
        )
        starts = [
            group_stds(spec.slots[r.group.start : r.group.stop], init, hidden) for r in self.rows
        ]
        stds = [std for std, _ in starts]
        if size == "L":
            self.head = nn.ParameterList(
                nn.Parameter(torch.randn(hidden, r.width) * s)
                for r, s in zip(self.rows, stds, strict=True)
            )
        else:  # one head for all, as wide as the widest; gates bring each group to its own start
            width = max(r.width for r in self.rows)
            self.head = nn.ParameterList([nn.Parameter(torch.randn(hidden, width) * max(stds))])
            gates = [s / max(stds) if max(stds) else 1.0 for s in stds]
            self.gate = nn.Parameter(torch.tensor(gates))
        self.offset = nn.Parameter(start_offset(spec, init))
        self.register_buffer("scale", torch.tensor([c for _, factors in starts for c in factors]))
        self.scale: Tensor

    def _entities(self) -> tuple[Tensor, Tensor]:
        """What the trunk runs over, and which of it each slot row reads.

        Returns:
            `[E, 3]` (layer, kind and part numbers of each entity) and `[rows]` entity numbers in
            the order of the groups, slots and rows.
        """
        layers = sorted({-1 if s.layer is None else s.layer for s in self.spec})
        kinds = sorted({_kind(s.module) for s in self.spec})
        parts = sorted({_part(s.name, s.module) for s in self.spec})
        entities: dict[tuple[int, int, int, str], int] = {}
        rows_of: list[int] = []
        most = max(r.count for r in self.rows)
        for rows in self.rows:
            for slot in self.spec.slots[rows.group.start : rows.group.stop]:
                layer = layers.index(-1 if slot.layer is None else slot.layer)
                kind = kinds.index(_kind(slot.module))
                part = 0 if self.size == "L" else 1 + parts.index(_part(slot.name, slot.module))
                for row in range(rows.count):
                    key = (layer, kind, part * most + row if self.size == "S" else part)
                    name = slot.module if self.size == "L" else slot.name
                    rows_of.append(entities.setdefault((*key, name), len(entities)))
        return torch.tensor([key[:3] for key in entities]), torch.tensor(rows_of)

    def forward(self, condition: Condition) -> Weights:
        """Generates one set of weights for each row of the condition."""
        place = (
            self.mix_layer(self.layer_embedding(self.layers_index))
            + self.mix_kind(self.kind_embedding(self.kinds_index))
            + self.part_embedding(self.parts_index)
        )
        features = self.trunk(self.mix_task(self.task(condition.pooled))[:, None] + place)
        groups, start = [], 0
        offsets = self.spec.split(self.offset[None])
        for g, (rows, offset) in enumerate(zip(self.rows, offsets, strict=True)):
            group = rows.group
            stop = start + len(group) * rows.count
            head = self.head[g if self.size == "L" else 0][:, : rows.width]
            scale = self.scale[group.start : group.stop].repeat_interleave(rows.count)
            if self.size != "L":
                scale = scale * self.gate[g]
            # Scales go into the few features, and the product is added to the offset in place:
            # the numbers, the one large tensor here, are written once.
            part = features.index_select(1, self.entity_index[start:stop]) * scale[:, None]
            tokens = rows.cut(offset).repeat(len(part), 1, 1, 1)
            tokens.view(-1, rows.width).addmm_(part.flatten(0, 1), head)
            groups.append(rows.assemble(tokens))
            start = stop
        return Weights(self.spec, groups)


def _kind(module: str) -> str:
    """Module path with its layer numbers taken out: equal for the same module of every layer."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", module)


def _part(name: str, module: str) -> str:
    """Which tensor of its module a slot is, e.g. `lora_A.weight`."""
    return name.removeprefix(module).lstrip(".")
