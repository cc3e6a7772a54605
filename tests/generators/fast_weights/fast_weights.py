"""A tiny base, documents, and adapters whose every number is random."""

from __future__ import annotations

from functools import cache
from typing import Any

import tiny_language
import torch

from hypergen.conditions import DocumentEncoder
from hypergen.generators.fast_weights import GenerativeAdapter
from hypergen.specs import LoRASpec

WORDS = " ".join(tiny_language.ANIMALS + tiny_language.THINGS)
# 10, 2 and 32 tokens.
DOCUMENTS = ["cat dog cow\nhen fox\n\nowl pig bee cup car", "pen box", f"{WORDS}\n{WORDS}"]
TARGETS = ("q_proj", "k_proj", "o_proj", "down_proj")
KINDS = ("polar", "ridge", "frobenius", "none")


@cache
def base():
    return tiny_language.causal()


@cache
def spec(r: int = 2, targets: tuple[str, ...] = TARGETS) -> LoRASpec:
    return LoRASpec(base().model, targets, r=r, task_type="CAUSAL_LM")


def encoder(read: str = "layer", targets: tuple[str, ...] = TARGETS, **options: Any):
    options = {"chunk_size": 4, "batch_size": 3, **options}
    return DocumentEncoder.from_model(base().model, base().tokenizer, targets, read=read, **options)


def adapter(own: LoRASpec | None = None, read: str = "layer", **options: Any) -> GenerativeAdapter:
    """An adapter whose B is not zero."""
    torch.manual_seed(0)
    own = own or spec()
    options = {"state_rank": 6, **options}
    net = GenerativeAdapter(own, encoder(read, own.modules), **options).eval()
    with torch.no_grad():
        for family in net._families():
            family.out.normal_(std=0.1)
    return net


def delta(weights, index: int = 0) -> torch.Tensor:
    """All updates of one network, in one vector."""
    own = weights.spec
    return torch.cat([own.delta(weights, path)[index].flatten() for path in own.modules])
