"""Which label of a closed set is likeliest, all labels in one forward pass."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypergen.specs import Weights, cache_argument
from hypergen.zoo.language.prefill import Prefilled
from hypergen.zoo.language.tokens import Ragged, encode, join

if TYPE_CHECKING:
    from hypergen.zoo.language.causal import CausalSuite

MOST_LOGITS = 2048  # positions whose logits are held at a time, each as wide as the vocabulary


def rows_at_once(suite: CausalSuite, tasks: Tensor, split: str) -> int:
    """Rows of a batch whose logits at the choices fit into memory."""
    own = [suite.tasks[task] for task in tasks.tolist()]
    packs, _, _ = _pack(suite, [task.choices(i) for task in own for i in task.instances[split]])
    longest = int(packs.lengths.max())
    return max(1, min(suite.eval_batch, MOST_LOGITS // max(1, longest)))


@singledispatch
@torch.no_grad()
def choice_scores(
    suite: CausalSuite,
    target: Any,
    weights: Weights,
    tasks: Tensor,
    rows: Tensor,
    choices: list[tuple[str, ...]],
    split: str = "test",
    wordings: Tensor | None = None,
    state: Prefilled | None = None,
) -> Tensor:
    """Log-likelihoods of the choices of each instance, the token that ends an answer included.

    The choices follow the prompt one after the other in one sequence; a mask lets each see the
    prompt and itself alone, at the positions that it would have alone. So the prompt is read once,
    and not once for each choice.

    Args:
        suite: Where tokens come from; the model must take a 4-D attention mask.
        target: The frozen target.
        weights: `B` networks.
        tasks: `[B]` task numbers.
        rows: `[B, S]` instances.
        choices: `B · S` tuples.
        split: Split of the instances.
        wordings: `[B]`, numbers of the descriptions in the prompts; the first when not given.
        state: The prompts as `hypergen.zoo.language.prefill` has read them, if it has; only the
            choices are read then.

    Returns:
        `[N, C]`, minus infinity where an instance has fewer choices; means over the tokens
        instead of sums if the suite normalises lengths.
    """
    packs, segments, index = _pack(suite, choices)
    segment, _ = join([(segments, index)], -1)  # [N, K]: number of the choice of each token
    k = torch.arange(segment.shape[1])
    is_first = torch.ones_like(segment, dtype=torch.bool)
    is_first[:, 1:] = segment[:, 1:] != segment[:, :-1]
    within = k - torch.where(is_first, k, 0).cummax(1).values  # place in its own choice
    if state is None:
        ids, start, _ = suite.sequences(tasks, rows, split, (packs, index), wordings)
        logits = _behind(suite, target, weights, ids, start, segment, within)
        tokens = ids.gather(1, (start[:, None] + k).clamp(max=ids.shape[1] - 1))
    else:
        tokens, _ = join([(packs, index)], suite.pad)
        logits = _after(suite, target, weights, state.branch(), tokens, segment, within)
    total = torch.logsumexp(logits, -1)
    # A first token is predicted by the prompt's end, the others by their predecessor.
    source = torch.where(is_first, 0, k)
    picked = logits.flatten(0, 1)[
        (torch.arange(len(tokens))[:, None] * logits.shape[1] + source).flatten(), tokens.flatten()
    ].view_as(tokens)
    logp = picked - total.gather(1, source)
    real = segment >= 0
    column = segment.clamp(min=0)
    zeros = torch.zeros(len(tokens), int(segment.max()) + 1)
    sums = zeros.scatter_add(1, column, logp * real)
    lengths = zeros.scatter_add(1, column, real.float())
    if suite.normalize_length:
        sums = sums / lengths.clamp(min=1)
    return sums.masked_fill(lengths == 0, -torch.inf)


def _behind(
    suite: CausalSuite,
    target: Any,
    weights: Weights,
    ids: Tensor,
    start: Tensor,
    segment: Tensor,
    within: Tensor,
) -> Tensor:
    """Logits `[N, K + 1, V]` at the end of each prompt and at the choices, all read at once.

    Args:
        suite: Whose network reads.
        target: The frozen target.
        weights: `B` networks.
        ids: `[N, L]` prompts with their choices behind them.
        start: `[N]`, where the choices begin.
        segment: `[N, K]`, number of the choice of each token.
        within: `[N, K]`, its place in that choice.
    """
    length = ids.shape[1]
    place = torch.arange(length)
    behind = place - start[:, None]  # position after the prompt
    inside = (behind >= 0) & (behind < segment.shape[1])
    at = behind.clamp(0, segment.shape[1] - 1)
    of = torch.where(inside, segment.gather(1, at), -1)
    prompt = place < start[:, None]
    sees = (of[:, :, None] == of[:, None]) & ~prompt[:, None]  # a choice sees itself
    sees = (sees | prompt[:, None]) & (place[:, None] >= place)
    # The position that each token would have alone.
    position = torch.where(inside, start[:, None] + within.gather(1, at), place)
    ends = start[:, None] - 1 + torch.arange(segment.shape[1] + 1)
    inputs = {
        "input_ids": ids,
        "attention_mask": _additive(suite, sees),
        "position_ids": position,
        "answer_positions": ends.clamp(max=length - 1) - length,
    }
    logits: Tensor = target(weights, suite.to_device(inputs))
    return logits.float().cpu()


def _after(
    suite: CausalSuite,
    target: Any,
    weights: Weights,
    state: Prefilled,
    tokens: Tensor,
    segment: Tensor,
    within: Tensor,
) -> Tensor:
    """As `_behind`, from prompts that were read before; see there."""
    width = tokens.shape[1]
    k = torch.arange(width)
    own = (segment[:, :, None] == segment[:, None]) & (k[:, None] >= k)
    prompt = state.seen[:, None].expand(-1, width, -1)
    inputs = {
        "input_ids": tokens,
        "attention_mask": _additive(suite, torch.cat([prompt, own], 2)),
        "position_ids": state.length[:, None] + within,
        "answer_positions": (k - width).expand_as(tokens),
    }
    kept = {cache_argument(suite.network): state.cache, "use_cache": True}
    output = target(weights, {**suite.to_device(inputs), **kept})
    return torch.cat([state.logits[:, None], output.logits], 1).float().cpu()


def _additive(suite: CausalSuite, sees: Tensor) -> Tensor:
    """What a token sees, `[N, Q, L]`, as the mask that attention adds: `[N, 1, Q, L]`."""
    dtype = next(suite.network.parameters()).dtype
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)
    return mask[:, None]


def _pack(suite: CausalSuite, choices: list[tuple[str, ...]]) -> tuple[Ragged, Ragged, Tensor]:
    """The tokens of all choices of an instance one after the other, once for each distinct tuple.

    Returns:
        Tokens, number of the choice that each belongs to, and the row of each instance `[N]`.
    """
    distinct = {options: i for i, options in enumerate(dict.fromkeys(choices))}
    words, encoded = distinct_choices(suite, choices)
    tokens = [[i for t in o for i in encoded[words[t]]] for o in distinct]
    numbers = [[c for c, t in enumerate(o) for _ in encoded[words[t]]] for o in distinct]
    index = torch.tensor([distinct[options] for options in choices])
    return Ragged.of(tokens), Ragged.of(numbers), index


def distinct_choices(
    suite: CausalSuite, choices: list[tuple[str, ...]]
) -> tuple[dict[str, int], list[list[int]]]:
    """Text of a choice → number, and the tokens of each with the one that ends an answer."""
    words = {text: i for i, text in enumerate(dict.fromkeys(t for o in choices for t in o))}
    encoded = encode(suite.language_model.tokenizer, [suite.prompt.answer(t) for t in words])
    end = [] if suite.end is None else [suite.end]
    return words, [[*row, *end] for row in encoded]
