"""Shared factors A and B of every module, and a small generated matrix between them."""

from __future__ import annotations

import re
from typing import Literal

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.base import Generator
from hypergen.generators.hyper.mlp import ResidualBlock
from hypergen.specs import Slot, Weights, WeightSpec


class ZhyperGenerator(Generator):
    """ΔW_m = s · B_m · Z_m(condition) · A_m, where only Z is generated.

    "Zhyper: Factorized Hypernetworks for Conditioned LLM Fine-Tuning", 2025, arXiv:2510.19733.
    A_m `[r, in]` and B_m `[out, r]` are learned and the same for every condition; from the
    condition and embeddings of layer and module type comes Z_m, the diagonal of an r × r matrix or
    all of it. The head has r or r² outputs instead of r · (in + out), so that nearly all numbers
    are those of one multi-task adapter, and all conditions of a module share one space of rows
    and one of columns, r-dimensional: what the rank must be large enough for.

    Emitted is the pair (A_m, B_m Z_m), an ordinary LoRA. A square root of Z on each side would need
    a rule for signs and has an infinite slope at zero; and this way A stays the same, so that
    adapters of many conditions that are served together differ in B alone.

    Ours: how it starts, exactly as the unchanged base either way. With `start="zero"`, Z is zero
    and B random: what is learned first is the condition's part. With `start="shared"`, Z is near
    the identity and B zero: what is learned first is one adapter for all conditions, which helps
    where tasks have much in common (on the digits, whose questions cancel, it is worse).

    Args:
        spec: A spec of LoRA pairs alone: `LoRASpec`, or `PeftSpec` of plain LoRA.
        encoder: Turns raw inputs into a condition; its pooled vector is used.
        mix: Z is `"diag"` or `"full"`.
        hidden: Width of the trunk.
        depth: Residual blocks of the trunk.
        dropout: Dropout inside the blocks.
        start: What is zero at the start, Z (`"zero"`) or B (`"shared"`).
        spread: Standard deviation of the entries of Z (of a row of Z, if full) around the identity
            at a shared start.

    Raises:
        SpecError: A slot is not half of a LoRA pair; names it.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        mix: Literal["diag", "full"] = "diag",
        hidden: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        start: Literal["shared", "zero"] = "zero",
        spread: float = 0.5,
    ) -> None:
        config = {
            "mix": mix,
            "hidden": hidden,
            "depth": depth,
            "dropout": dropout,
            "start": start,
            "spread": spread,
        }
        super().__init__(spec, encoder, config)
        if mix not in ("diag", "full"):
            raise SpecError(f"mix {mix!r} is neither diag nor full")
        if start not in ("shared", "zero"):
            raise SpecError(f"start {start!r} is neither shared nor zero")
        check_pairs(spec)
        self.mix = mix
        # In flat order: the modules of one group of B stand next to each other.
        pairs = [slot for slot in spec if slot.role == "lora_B"]
        layers = sorted({-1 if s.layer is None else s.layer for s in pairs})
        kinds = sorted({_kind(s) for s in pairs})
        place = [
            (layers.index(-1 if s.layer is None else s.layer), kinds.index(_kind(s))) for s in pairs
        ]
        self.register_buffer("place", torch.tensor(place), persistent=False)
        self.place: Tensor
        self.task = nn.Sequential(nn.Linear(encoder.dim, hidden // 2), nn.LayerNorm(hidden // 2))
        self.layer_embedding = nn.Embedding(len(layers), hidden // 4)
        self.kind_embedding = nn.Embedding(len(kinds), hidden // 4)
        self.mix_task = nn.Linear(hidden // 2, hidden)
        self.mix_layer = nn.Linear(hidden // 4, hidden, bias=False)
        self.mix_kind = nn.Linear(hidden // 4, hidden, bias=False)
        self.trunk = nn.Sequential(
            nn.GELU(),
            *(ResidualBlock(hidden, dropout) for _ in range(depth)),
            nn.LayerNorm(hidden, elementwise_affine=False),
        )
        self.rank = max(s.shape[1] for s in pairs)
        shape = (self.rank,) if mix == "diag" else (self.rank, self.rank)
        identity = torch.ones(shape) if mix == "diag" else torch.eye(self.rank)
        shared = start == "shared"
        self.register_buffer("identity", identity * shared, persistent=False)
        self.identity: Tensor
        std = spread / hidden**0.5 / (1 if mix == "diag" else self.rank**0.5)
        self.head = nn.Parameter(torch.randn(hidden, *shape) * (std if shared else 0.0))
        self.factors = nn.ParameterList(
            torch.stack([_factor(s, shared) for s in spec.slots[g.start : g.stop]])
            for g in spec.groups
        )

    def mixers(self, condition: Condition) -> Tensor:
        """Z of every module, in the order of the B slots.

        Returns:
            `[B, modules, rank]`, the diagonals, or `[B, modules, rank, rank]`; of modules of a
            smaller rank than the largest, the first rows and columns count.
        """
        layers, kinds = self.place.unbind(1)
        place = self.mix_layer(self.layer_embedding(layers)) + self.mix_kind(
            self.kind_embedding(kinds)
        )
        # The task's part of the first layer is computed once, not once a module.
        features = self.trunk(self.mix_task(self.task(condition.pooled))[:, None] + place)
        return self.identity + torch.tensordot(features, self.head, dims=1)

    def forward(self, condition: Condition) -> Weights:
        """Generates one set of weights for each row of the condition."""
        return self.emit(self.mixers(condition))

    def emit(self, mixers: Tensor) -> Weights:
        """The pairs (A, B Z) for given Z, shaped as `mixers` returns them."""
        groups, start = [], 0
        for group, factor in zip(self.spec.groups, self.factors, strict=True):
            if group.role == "lora_A":
                groups.append(factor.expand(len(mixers), *factor.shape))
                continue
            stop, rank = start + len(group), group.shape[1]
            z = mixers[:, start:stop]
            groups.append(
                factor * z[..., None, :rank]
                if self.mix == "diag"
                else factor @ z[..., :rank, :rank]
            )
            start = stop
        return Weights(self.spec, groups)

    def shared_weights(self, batch: int = 1) -> Weights:
        """The adapter (A, B) that all conditions share: Z is the identity.

        A good adapter on its own only if Z stays near the identity, as from a shared start.
        """
        modules = len(self.place)
        identity = self.head.new_ones(self.rank)
        one = identity if self.mix == "diag" else torch.diag(identity)
        return self.emit(one.expand(batch, modules, *one.shape))


def check_pairs(spec: WeightSpec) -> None:
    """Checks that a spec consists of LoRA pairs A `[r, in]`, B `[out, r]` and nothing else.

    Raises:
        SpecError: A slot is not half of a pair; names it.
    """
    paired = {slot.name for slot in spec if slot.role == "lora_B"}
    paired |= {_partner(name) for name in paired}
    for slot in spec:
        partner = _partner(slot.name)
        whole = slot.name in paired and len(slot.shape) == 2
        if slot.role == "lora_B" and whole:
            whole = partner in spec and spec[partner].shape[:1] == slot.shape[1:]
        if not whole or slot.role not in ("lora_A", "lora_B"):
            raise SpecError(
                f"slot {slot.name!r} ({slot.role}, {list(slot.shape)}) is not half of a LoRA pair, "
                "between which a matrix Z could stand: use LoRASpec, PeftSpec of plain LoRA, or "
                "another generator"
            )


def _partner(name: str) -> str:
    """Name of A for that of B, as PEFT names the two."""
    return re.sub(r"lora_(embedding_)?B(?=(\.\w+)?$)", r"lora_\1A", name)


def _factor(slot: Slot, shared: bool) -> Tensor:
    """Start of a factor: A at random; B zero (`shared`) or at random."""
    if slot.role == "lora_B":
        return torch.zeros(slot.shape) if shared else torch.randn(slot.shape) * slot.scale
    # PEFT starts an embedding's A at zero, which with B = 0 or Z = 0 would pass no gradient on.
    return torch.randn(slot.shape) * (slot.std or 1.0)


def _kind(slot: Slot) -> str:
    """The module's path with its layer numbers taken out."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", slot.module)
