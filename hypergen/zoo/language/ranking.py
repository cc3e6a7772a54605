"""Which label of a closed set is likeliest, all labels in one forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen.specs import Weights
from hypergen.zoo.language.decoding import is_right
from hypergen.zoo.language.tokens import Ragged, encode, join

if TYPE_CHECKING:
    from hypergen.zoo.language.causal import CausalSuite

MOST_LOGITS = 2048  # positions whose logits are held at a time, each as wide as the vocabulary


@torch.no_grad()
def label_ranking(
    suite: CausalSuite, target: Any, weights: Weights, tasks: Tensor, split: str = "test"
) -> Tensor:
    """Share of instances whose likeliest choice is right, `[B]`.

    Raises:
        UsageError: A task has open outputs; names it.
    """
    right, count = torch.zeros(len(tasks)), torch.zeros(len(tasks))
    own = [suite.tasks[task] for task in tasks.tolist()]
    packs, _, _ = _pack(suite, [task.choices(i) for task in own for i in task.instances[split]])
    batch = min(suite.eval_batch, MOST_LOGITS // max(1, int(packs.lengths.max())))
    for rows, valid in suite.evaluation_rows(tasks, split, max(1, batch)):
        instances = [
            (suite.tasks[task], suite.tasks[task].instances[split][row])
            for task, numbers in zip(tasks.tolist(), rows.tolist(), strict=True)
            for row in numbers
        ]
        choices = [task.choices(instance) for task, instance in instances]
        for (task, _), options in zip(instances, choices, strict=True):
            if not options:
                raise UsageError(f"task {task.name!r} has open outputs: score it by exact match")
        scores = choice_scores(suite, target, weights, tasks, rows, choices, split)
        hits = [
            is_right(options[best], instance.outputs)
            for options, best, (_, instance) in zip(
                choices, scores.argmax(1).tolist(), instances, strict=True
            )
        ]
        right += (torch.tensor(hits).view_as(valid) & valid).sum(1)
        count += valid.sum(1)
    return right / count


@torch.no_grad()
def choice_scores(
    suite: CausalSuite,
    target: Any,
    weights: Weights,
    tasks: Tensor,
    rows: Tensor,
    choices: list[tuple[str, ...]],
    split: str = "test",
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

    Returns:
        `[N, C]`, minus infinity where an instance has fewer choices; means over the tokens
        instead of sums if the suite normalises lengths.
    """
    packs, segments, index = _pack(suite, choices)
    ids, start, _ = suite.sequences(tasks, rows, split, (packs, index))
    segment, _ = join([(segments, index)], -1)  # [N, K]: number of the choice of each token
    count, length = ids.shape
    place = torch.arange(length)
    behind = place - start[:, None]  # position after the prompt
    inside = (behind >= 0) & (behind < segment.shape[1])
    of = torch.where(inside, segment.gather(1, behind.clamp(0, segment.shape[1] - 1)), -1)
    prompt = place < start[:, None]
    sees = (of[:, :, None] == of[:, None]) & ~prompt[:, None]  # a choice sees itself
    sees = (sees | prompt[:, None]) & (place[:, None] >= place)
    dtype = next(suite.network.parameters()).dtype
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)
    # First token of each choice, and the position that each token would have alone.
    k = torch.arange(segment.shape[1])
    is_first = torch.ones_like(segment, dtype=torch.bool)
    is_first[:, 1:] = segment[:, 1:] != segment[:, :-1]
    within = k - torch.where(is_first, k, 0).cummax(1).values
    alone = start[:, None] + within.gather(1, behind.clamp(0, segment.shape[1] - 1))
    position = torch.where(inside, alone, place)
    # Logits at the prompt's last token and at those of the choices.
    at = (start[:, None] - 1 + torch.arange(segment.shape[1] + 1)).clamp(max=length - 1)
    inputs = {
        "input_ids": ids,
        "attention_mask": mask[:, None],
        "position_ids": position,
        "answer_positions": at - length,
    }
    logits = target(weights, suite.to_device(inputs)).float().cpu()
    total = torch.logsumexp(logits, -1)
    tokens = ids.gather(1, (start[:, None] + k).clamp(max=length - 1))
    # A first token is predicted by the prompt's end, the others by their predecessor.
    source = torch.where(is_first, 0, k)
    picked = logits.flatten(0, 1)[
        (torch.arange(count)[:, None] * logits.shape[1] + source).flatten(), tokens.flatten()
    ].view_as(tokens)
    logp = picked - total.gather(1, source)
    real = segment >= 0
    size = int(segment.max()) + 1
    column = segment.clamp(min=0)
    zeros = torch.zeros(count, size)
    sums = zeros.scatter_add(1, column, logp * real)
    lengths = zeros.scatter_add(1, column, real.float())
    if suite.normalize_length:
        sums = sums / lengths.clamp(min=1)
    return sums.masked_fill(lengths == 0, -torch.inf)


def _pack(suite: CausalSuite, choices: list[tuple[str, ...]]) -> tuple[Ragged, Ragged, Tensor]:
    """The tokens of all choices of an instance one after the other, once for each distinct tuple.

    Returns:
        Tokens, number of the choice that each belongs to, and the row of each instance `[N]`.
    """
    distinct = {options: i for i, options in enumerate(dict.fromkeys(choices))}
    words = {text: i for i, text in enumerate(dict.fromkeys(t for o in distinct for t in o))}
    encoded = encode(suite.language_model.tokenizer, [suite.prompt.answer(t) for t in words])
    end = [] if suite.end is None else [suite.end]
    tokens = [[i for t in o for i in (*encoded[words[t]], *end)] for o in distinct]
    numbers = [
        [c for c, t in enumerate(o) for _ in range(len(encoded[words[t]]) + len(end))]
        for o in distinct
    ]
    index = torch.tensor([distinct[options] for options in choices])
    return Ragged.of(tokens), Ragged.of(numbers), index
