"""Normalisation layers of the zoo's networks."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNorm(_BatchNorm):
    """Batch norm (Ioffe and Szegedy, ICML 2015, arXiv:1502.03167) of any rank, without counter.

    The integer `num_batches_tracked` of `torch.nn` is not a weight, and `torch.func` cannot count
    it up inside a gradient. State dicts hold weight, bias, running mean and running variance.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.num_batches_tracked = None

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        # That of the parent class adds a counter to state dicts that have none.
        nn.Module._load_from_state_dict(self, *args, **kwargs)


def layer_norm(channels: int) -> nn.GroupNorm:
    """Layer norm over channels and space of `[N, C, H, W]` (or `[N, C]`), one scale a channel."""
    return nn.GroupNorm(1, channels)


NORMS = {None: None, "batch": BatchNorm, "layer": layer_norm}


def norm_slots(kind: str | None, name: str) -> list[str]:
    """Names of the slots of a normalisation layer, each of one entry a channel."""
    statistics = ["running_mean", "running_var"] if kind == "batch" else []
    return [] if kind is None else [f"{name}.{leaf}" for leaf in ["weight", "bias", *statistics]]
