"""Stand-ins for base models of which only the adapted modules are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn


@dataclass(frozen=True)
class Pair:
    """One adapted module.

    Attributes:
        kind: `"linear"`, `"conv1d"` or `"embedding"`.
        inputs: Length of A's rows.
        outputs: Length of B's columns.
        rank: Rank r.
        scaling: Factor of B · A.
    """

    kind: str
    inputs: int
    outputs: int
    rank: int
    scaling: float


Pairs = tuple[tuple[str, Pair], ...]


@lru_cache(maxsize=4096)
def shared(pairs: Pairs) -> Pairs:
    """Makes equal values one object: adapters come by the thousand, with the same modules."""
    return pairs


def natural(path: str) -> list[tuple[int, int, str]]:
    """Sorts `layers.2` before `layers.10`."""
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in path.split(".")]


class Conv1D(nn.Module):
    """What specs read off transformers' `Conv1D`, whose weight is [in, out]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.nf = outputs
        self.weight = nn.Parameter(torch.empty(inputs, outputs, device="meta"))


# Attributes of modules, which no module inside them can be named after.
_RESERVED = {*dir(nn.Linear(1, 1)), *dir(nn.Embedding(1, 1)), *dir(Conv1D(1, 1))}


def is_module_path(path: str) -> bool:
    """Whether a model can have a module of that path."""
    return all(part and part not in _RESERVED for part in path.split("."))


def skeleton(pairs: Mapping[str, Pair]) -> nn.Module:
    """A model without values that has the adapted modules and nothing else."""
    model = nn.Module()
    # Outer modules first: adapted modules may hold others.
    for path in sorted(pairs, key=natural):
        *folders, name = path.split(".")
        parent = model
        for folder in folders:
            if folder not in parent._modules:
                parent.add_module(folder, nn.Module())
            parent = parent.get_submodule(folder)
        parent.add_module(name, _stand_in(pairs[path]))
    return model


def _stand_in(pair: Pair) -> nn.Module:
    if pair.kind == "embedding":
        return nn.Embedding(pair.inputs, pair.outputs, device="meta")
    if pair.kind == "conv1d":
        return Conv1D(pair.inputs, pair.outputs)
    return nn.Linear(pair.inputs, pair.outputs, bias=False, device="meta")
