"""Prompts read once: keys and values for decoding and for ranking, shared where prompts agree.

The samples of a network begin alike (the description, the demonstrations). What they share is read
once for each network, not once for each sample; what follows then attends to it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypergen.specs import Weights, cache_argument
from hypergen.targets import LoRATarget, PrefixTarget
from hypergen.zoo.base_call import BaseCall

if TYPE_CHECKING:
    from hypergen.zoo.language.causal import CausalSuite

_WORTH = 8  # shared tokens that are worth a pass of their own


@dataclass(frozen=True, eq=False)
class Prefilled:
    """Prompts that a network has read.

    Attributes:
        logits: `[N, V]`, what follows each prompt.
        cache: Keys and values of P columns.
        seen: `[N, P]`, the columns that hold tokens of the prompt.
        length: `[N]`, tokens of each prompt.
    """

    logits: Tensor
    cache: Any
    seen: Tensor
    length: Tensor

    def branch(self) -> Prefilled:
        """The same, to go on from without changing this one.

        Layers of keys and values put new tensors in the place of old ones: nothing is copied here.
        """
        if not _grows(self.cache):
            return replace(self, cache=copy.deepcopy(self.cache))
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        return replace(self, cache=cache)


def keeps_state(target: Any) -> bool:
    """Whether a target's calls may go on from keys and values; others must read all again."""
    return isinstance(target, (LoRATarget, PrefixTarget, BaseCall))


def prefill(
    suite: CausalSuite, target: Any, weights: Weights, ids: Tensor, length: Tensor, blocks: int
) -> Prefilled:
    """Reads prompts.

    Args:
        suite: Whose network reads.
        target: A target of which `keeps_state` holds.
        weights: `blocks` networks.
        ids: `[N, L]` prompts in blocks by network, padded on the right.
        length: `[N]`, tokens of each.
        blocks: Networks; each has as many prompts.
    """
    total = ids.shape[1]
    rows = ids.view(blocks, -1, total)
    count = rows.shape[1]
    same = (rows == rows[:, :1]).all(1).long().cumprod(1).sum(1)  # [blocks]
    shared = same.minimum(length.view(blocks, -1).amin(1) - 1)
    if count > 1 and int(shared.min()) >= _WORTH:
        state = _shared(suite, target, weights, rows, length, shared)
        if state is not None:
            return state
    seen = torch.arange(total) < length[:, None]
    inputs = {
        "input_ids": ids,
        "attention_mask": seen.long(),
        "answer_positions": (length - 1 - total)[:, None],
    }
    output = target(weights, {**suite.to_device(inputs), "use_cache": True})
    cache = getattr(output, cache_argument(suite.network))
    return Prefilled(output.logits[:, -1], cache, seen, length)


def _shared(
    suite: CausalSuite, target: Any, weights: Weights, rows: Tensor, length: Tensor, shared: Tensor
) -> Prefilled | None:
    """As `prefill`, with the first tokens of each network's prompts read once.

    Args:
        suite: Whose network reads.
        target: The frozen target.
        weights: `B` networks.
        rows: `[B, S, L]` prompts.
        length: `[B · S]`, tokens of each.
        shared: `[B]`, first tokens that the prompts of a network have in common.

    Returns:
        None where the model keeps something else than the keys and values of all tokens.
    """
    name = cache_argument(suite.network)
    blocks, count, total = rows.shape
    place = torch.arange(total)
    most = int(shared.max())
    head = place[:most] < shared[:, None]
    inputs = {
        "input_ids": rows[:, 0, :most],
        "attention_mask": head.long(),
        "answer_positions": torch.full((blocks, 1), -1),
    }
    output = target(weights, {**suite.to_device(inputs), "use_cache": True})
    cache = getattr(output, name)
    if not _grows(cache):
        return None
    cache.batch_repeat_interleave(count)
    begin = shared.repeat_interleave(count)
    rest = length - begin
    width = int(rest.max())
    inside = place[:width] < rest[:, None]
    at = begin[:, None] + place[:width]
    tokens = rows.flatten(0, 1).gather(1, at.clamp(max=total - 1)).masked_fill(~inside, suite.pad)
    # The columns between the shared part and the rest stay masked; positions leave no gap.
    seen = torch.cat([head.repeat_interleave(count, 0), inside], 1)
    inputs = {
        "input_ids": tokens,
        "attention_mask": seen.long(),
        "position_ids": at,
        "answer_positions": (rest - 1 - width)[:, None],
    }
    output = target(weights, {**suite.to_device(inputs), name: cache, "use_cache": True})
    return Prefilled(output.logits[:, -1], getattr(output, name), seen, length)


def _grows(cache: Any) -> bool:
    """Whether a cache is keys and values of all tokens: no window, no recurrent state."""
    layers = getattr(cache, "layers", None) or ()
    return len(layers) > 0 and all(
        hasattr(layer, "keys") and not getattr(layer, "is_sliding", False) for layer in layers
    )
