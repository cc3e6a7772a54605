"""Small architectures of every kind, and small graph hypernetworks for them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from hypergen.conditions.graph import ModuleGraph, trace
from hypergen.conditions.graph.examples import EXAMPLES
from hypergen.generators.graph import GraphHypernetwork

NAMES = ("mlp", "resnet", "lstm", "gpt2", "llama", "vit", "unet")
GENERATORS: dict[str, dict[str, Any]] = {
    "ghn2": {"encoder": {"name": "gated", "dim": 16}, "decoder": {"name": "tiling", "tile": 8}},
    "ghn3": {
        "encoder": {"name": "transformer", "dim": 16, "layers": 2, "heads": 2},
        "decoder": {"name": "tiling", "tile": 8, "features": 32},
    },
    "loga": {
        "encoder": {"name": "transformer", "dim": 16, "layers": 1, "heads": 2},
        "decoder": {"name": "low_rank", "rank": 4, "features": 32, "noise": 0.0},
    },
    "ours": {
        "encoder": {"name": "transformer", "dim": 16, "layers": 2, "heads": 2},
        "decoder": {"name": "low_rank", "rank": 8, "features": 32},
    },
    "compressed": {
        "encoder": {"name": "gated", "dim": 16},
        "decoder": {"name": "low_rank", "rank": 8, "features": 32},
        "compress": True,
    },
    "tiles_and_noise": {
        "encoder": {"name": "transformer", "dim": 16, "layers": 1, "heads": 2},
        "decoder": {"name": "tiling", "tile": 8, "normalize": "standard", "noise": 1.0},
    },
}


def model(name: str) -> nn.Module:
    """One of the examples, with memory."""
    torch.manual_seed(0)
    return EXAMPLES[name]()


@cache
def graph(name: str) -> ModuleGraph:
    """Its graph."""
    return trace(model(name))


def generator(name: str, seed: int = 0) -> GraphHypernetwork:
    """A small graph hypernetwork."""
    torch.manual_seed(seed)
    return GraphHypernetwork(**GENERATORS[name])
