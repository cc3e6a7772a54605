"""Greedy answers, and whether they are right."""

from __future__ import annotations

import string
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypergen.specs import Weights, cache_argument
from hypergen.zoo.language.prefill import Prefilled, keeps_state, prefill

if TYPE_CHECKING:
    from hypergen.zoo.language.causal import CausalSuite


def normalize(text: str) -> str:
    """What counts of an answer: no case, no outer space, no trailing punctuation, single spaces."""
    plain = " ".join(text.split()).lower()
    return plain.rstrip(string.punctuation + " ") or plain  # an answer may be a sign alone


def first_line(text: str) -> str:
    """The first line that is not blank."""
    return text.strip().partition("\n")[0]


def is_right(answer: str, outputs: tuple[str, ...]) -> bool:
    """Whether an answer equals one of the accepted outputs, both normalised."""
    return normalize(answer) in {normalize(output) for output in outputs}


@torch.no_grad()
def greedy_answers(
    suite: CausalSuite,
    target: Any,
    weights: Weights,
    tasks: Tensor,
    rows: Tensor,
    split: str = "test",
    wordings: Tensor | None = None,
    state: Any = None,
) -> list[str]:
    """The answers that the networks write, `B · S` texts in blocks by task.

    Decoding stops as soon as every row has ended (after a plain prompt, also with its first line),
    and after a few tokens more than the longest reference. Keys and values are kept between tokens
    where the target works by hooks; others run the whole sequence again for each token, with equal
    results.

    Args:
        suite: Where prompts come from.
        target: The frozen target.
        weights: `B` networks.
        tasks: `[B]` task numbers.
        rows: `[B, S]` instances.
        split: Split of the instances.
        wordings: `[B]`, numbers of the descriptions in the prompts; the first when not given.
        state: The prompts as `hypergen.zoo.language.prefill` has read them, if it has.
    """
    _, answers, first = suite.table(split)
    reference = answers.lengths[(first[tasks][:, None] + rows).flatten()]
    steps = min(suite.max_new_tokens, int(reference.max()) + 2)
    ends = LineEnds(suite, tasks, rows, split)
    written = write(suite, target, weights, tasks, rows, split, wordings, state, steps, ends)
    keep = torch.ones_like(written, dtype=torch.bool)
    if suite.end is not None:
        keep = (written == suite.end).cumsum(1) == 0
    texts = [row[mask].tolist() for row, mask in zip(written, keep, strict=True)]
    return suite.language_model.tokenizer.batch_decode(texts, skip_special_tokens=True)


@singledispatch
def write(
    suite: CausalSuite,
    target: Any,
    weights: Weights,
    tasks: Tensor,
    rows: Tensor,
    split: str,
    wordings: Tensor | None,
    state: Any,
    steps: int,
    ends: LineEnds,
) -> Tensor:
    """The tokens of `greedy_answers`, `[N, T]` with T of at most `steps`, by kind of suite."""
    if state is None:
        ids, length, _ = suite.sequences(tasks, rows, split, None, wordings)
        if not keeps_state(target):
            return _repeated(suite, target, weights, ids, length, steps, ends)
        state = prefill(suite, target, weights, ids, length, len(tasks))
    return _continued(suite, target, weights, state.branch(), steps, ends)


class LineEnds:
    """Tells rows whose answer has ended: by the token for it, or with the line that counts.

    Args:
        suite: Of plain prompts the first line that is not blank counts (`scoring.said`).
        tasks: `[B]` task numbers.
        rows: `[B, S]` instances; where an output has several lines, only the token ends it.
        split: Split of the instances.
    """

    def __init__(self, suite: CausalSuite, tasks: Tensor, rows: Tensor, split: str) -> None:
        self.end = suite.end
        self.ended = torch.zeros(rows.numel(), dtype=torch.bool)
        self.begun = torch.zeros(rows.numel(), dtype=torch.bool)
        self.by_line = torch.tensor(
            [
                suite.prompt.template == "plain"
                and not any("\n" in o for o in suite.tasks[task].instances[split][row].outputs)
                for task, numbers in zip(tasks.tolist(), rows.tolist(), strict=True)
                for row in numbers
            ]
        )
        self.begins, self.breaks = suite.line_tokens()

    def all_after(self, token: Tensor) -> bool:
        """Takes the next token `[N]` of every row; whether all rows have ended."""
        self.begun |= self.begins[token]
        self.ended |= token == self.end
        self.ended |= self.by_line & self.begun & self.breaks[token]
        return bool(self.ended.all())


def _continued(
    suite: CausalSuite, target: Any, weights: Weights, state: Prefilled, steps: int, ends: LineEnds
) -> Tensor:
    """From the keys and values of the prompt, a token at a time."""
    name = cache_argument(suite.network)
    seen, cache = state.seen, state.cache
    token = state.logits.argmax(-1).cpu()
    written = [token]
    for step in range(steps - 1):
        if ends.all_after(token):
            break
        # The padding between prompt and answer stays masked; positions leave no gap.
        seen = torch.cat([seen, torch.ones(len(token), 1, dtype=torch.bool)], 1)
        inputs = {
            "input_ids": token[:, None],
            "attention_mask": seen.long(),
            "position_ids": (state.length + step)[:, None],
            "answer_positions": torch.full((len(token), 1), -1),
        }
        output = target(weights, {**suite.to_device(inputs), name: cache, "use_cache": True})
        cache = getattr(output, name)
        token = output.logits[:, -1].argmax(-1).cpu()
        written.append(token)
    return torch.stack(written, 1)


def _repeated(
    suite: CausalSuite,
    target: Any,
    weights: Weights,
    ids: Tensor,
    length: Tensor,
    steps: int,
    ends: LineEnds,
) -> Tensor:
    """The whole sequence once for each token, for targets that keep no state."""
    ids = torch.cat([ids, torch.full((len(ids), steps), suite.pad)], 1)
    written = torch.full((len(ids), steps), suite.pad)
    for step in range(steps):
        inputs = {
            "input_ids": ids,
            "attention_mask": (torch.arange(ids.shape[1]) < (length + step)[:, None]).long(),
            "answer_positions": (length + step - 1 - ids.shape[1])[:, None],
        }
        token = target(weights, suite.to_device(inputs))[:, 0].argmax(-1, keepdim=True).cpu()
        written[:, step : step + 1] = token
        if ends.all_after(token[:, 0]):
            return written[:, : step + 1]
        ids = ids.scatter(1, (length + step)[:, None], token)
    return written
