"""Greedy answers, and whether they are right."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypergen.specs import Weights
from hypergen.targets import LoRATarget, Target

if TYPE_CHECKING:
    from hypergen.zoo.language.causal import CausalSuite


class BaseCall:
    """The unchanged base of a target, called as a target is.

    Args:
        target: Whose base it is.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def __call__(self, weights: Weights, batch: Any) -> Any:
        """Runs the base; the weights do not matter."""
        return self.target.base(batch)


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
def exact_match(
    suite: CausalSuite, target: Any, weights: Weights, tasks: Tensor, split: str = "test"
) -> Tensor:
    """Share of greedy answers that are right, `[B]`.

    After a plain prompt the first line alone counts: a base model does not know that the answer
    ends there, and goes on with another input.
    """
    right, count = torch.zeros(len(tasks)), torch.zeros(len(tasks))
    for rows, valid in suite.evaluation_rows(tasks, split):
        answers = greedy_answers(suite, target, weights, tasks, rows, split)
        instances = [
            suite.tasks[task].instances[split][row]
            for task, numbers in zip(tasks.tolist(), rows.tolist(), strict=True)
            for row in numbers
        ]
        if suite.prompt.template == "plain":
            answers = [
                text if any("\n" in output for output in i.outputs) else first_line(text)
                for text, i in zip(answers, instances, strict=True)
            ]
        hits = [is_right(a, i.outputs) for a, i in zip(answers, instances, strict=True)]
        right += (torch.tensor(hits).view_as(valid) & valid).sum(1)
        count += valid.sum(1)
    return right / count


@torch.no_grad()
def greedy_answers(
    suite: CausalSuite,
    target: Any,
    weights: Weights,
    tasks: Tensor,
    rows: Tensor,
    split: str = "test",
) -> list[str]:
    """The answers that the networks write, `B · S` texts in blocks by task.

    Decoding stops as soon as every row has ended, and after a few tokens more than the longest
    reference. Keys and values are kept between tokens where the target works by hooks; others run
    the whole sequence again for each token, with equal results.
    """
    ids, start, _ = suite.sequences(tasks, rows, split, None)
    _, answers, first = suite.table(split)
    reference = answers.lengths[(first[tasks][:, None] + rows).flatten()]
    steps = min(suite.max_new_tokens, int(reference.max()) + 2)
    decode = _cached if isinstance(target, (LoRATarget, BaseCall)) else _repeated
    written = decode(suite, target, weights, ids, start, steps)
    keep = torch.ones_like(written, dtype=torch.bool)
    if suite.end is not None:
        keep = (written == suite.end).cumsum(1) == 0
    texts = [row[mask].tolist() for row, mask in zip(written, keep, strict=True)]
    return suite.language_model.tokenizer.batch_decode(texts, skip_special_tokens=True)


def _cached(
    suite: CausalSuite, target: Any, weights: Weights, ids: Tensor, length: Tensor, steps: int
) -> Tensor:
    """Keys and values of the prompt are computed once."""
    mask = torch.arange(ids.shape[1]) < length[:, None]
    kept: dict[str, Any] = {}
    inputs = {
        "input_ids": ids,
        "attention_mask": mask.long(),
        "answer_positions": (length - 1 - ids.shape[1])[:, None],
    }
    written: list[Tensor] = []
    ended = torch.zeros(len(ids), dtype=torch.bool)
    for step in range(steps):
        output = target(weights, {**suite.to_device(inputs), **kept, "use_cache": True})
        token = output.logits[:, -1].argmax(-1, keepdim=True).cpu()
        written.append(token)
        ended |= token[:, 0] == suite.end
        if bool(ended.all()):
            break
        # The padding between prompt and answer stays masked; positions leave no gap.
        mask = torch.cat([mask, torch.ones(len(ids), 1, dtype=torch.bool)], 1)
        inputs = {
            "input_ids": token,
            "attention_mask": mask.long(),
            "position_ids": (length + step)[:, None],
            "answer_positions": torch.full((len(ids), 1), -1),
        }
        kept = {"past_key_values": output.past_key_values}
    return torch.cat(written, 1)


def _repeated(
    suite: CausalSuite, target: Any, weights: Weights, ids: Tensor, length: Tensor, steps: int
) -> Tensor:
    """The whole sequence once for each token, for targets that keep no state."""
    ids = torch.cat([ids, torch.full((len(ids), steps), suite.pad)], 1)
    ended = torch.zeros(len(ids), dtype=torch.bool)
    written = torch.full((len(ids), steps), suite.pad)
    for step in range(steps):
        inputs = {
            "input_ids": ids,
            "attention_mask": (torch.arange(ids.shape[1]) < (length + step)[:, None]).long(),
            "answer_positions": (length + step - 1 - ids.shape[1])[:, None],
        }
        token = target(weights, suite.to_device(inputs))[:, 0].argmax(-1, keepdim=True).cpu()
        written[:, step : step + 1] = token
        ended |= token[:, 0] == suite.end
        if bool(ended.all()):
            return written[:, : step + 1]
        ids = ids.scatter(1, (length + step)[:, None], token)
    return written
