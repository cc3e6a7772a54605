"""How good the answers of many networks are: exact match, ROUGE-L, and ranking of closed sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen.specs import Weights
from hypergen.zoo.base_call import BaseCall
from hypergen.zoo.language.decoding import first_line, greedy_answers, is_right
from hypergen.zoo.language.prefill import keeps_state, prefill
from hypergen.zoo.language.ranking import choice_scores, rows_at_once
from hypergen.zoo.language.rouge import rouge_l

if TYPE_CHECKING:
    from hypergen.zoo.language.causal import CausalSuite
    from hypergen.zoo.language.tasks import Instance

METRICS = ("exact", "rank", "rouge_l")


@torch.no_grad()
def measure(
    suite: CausalSuite,
    target: Any,
    weights: Weights,
    tasks: Tensor,
    split: str = "test",
    wordings: Tensor | None = None,
    metrics: Sequence[str] = METRICS,
) -> dict[str, Tensor]:
    """Measures each network on its own task; prompts are read and answers written once for all.

    Args:
        suite: The tasks.
        target: The frozen target.
        weights: `B` networks.
        tasks: `[B]` task numbers.
        split: Split of the instances.
        wordings: `[B]`, numbers of the descriptions in the prompts; the first when not given.
        metrics: Some of `"exact"` (share of greedy answers that are right; case and trailing
            punctuation do not count), `"rouge_l"` (of the same answers) and `"rank"` (share of
            instances whose likeliest choice is right).

    Returns:
        Metric → `[B]`; `rank` is NaN where a task is open, unless it is the only one asked for.

    Raises:
        UsageError: A task has no instances in the split, or is open and `rank` alone is asked for.
    """
    out = {name: torch.full((len(tasks),), torch.nan) for name in metrics}
    closed = torch.tensor([is_closed(suite, task, split) for task in tasks.tolist()])
    if set(metrics) == {"rank"} and not bool(closed.all()):
        name = suite.names[int(tasks[(~closed).nonzero()[0]])]
        raise UsageError(f"task {name!r} has open outputs: score it by exact match")
    ranks = closed if "rank" in metrics else torch.zeros_like(closed)
    for ranked in (True, False):
        chosen = (ranks == ranked).nonzero()[:, 0]
        for index in _groups(suite, tasks, chosen, split, wordings):
            own = weights if isinstance(target, BaseCall) else weights[index]
            words = None if wordings is None else wordings[index]
            found = _group(suite, target, own, tasks[index], split, words, metrics, ranked)
            for name, values in found.items():
                out[name][index] = values
    return out


def is_closed(suite: CausalSuite, task: int, split: str) -> bool:
    """Whether every instance of a task has choices."""
    own = suite.tasks[task]
    return all(own.choices(instance) for instance in own.instances.get(split, ()))


def _groups(
    suite: CausalSuite, tasks: Tensor, chosen: Tensor, split: str, wordings: Tensor | None
) -> Iterator[Tensor]:
    """Networks that are scored together: as many as fill a batch with all their samples.

    Prompts of similar length go together, so that little is padded.
    """
    if not len(chosen):
        return
    suite.check_split(tasks[chosen], split)
    heads, _ = suite.heads()
    bodies, _, first = suite.table(split)
    words = None if wordings is None else wordings[chosen]
    head = heads.lengths[suite.head_rows(tasks[chosen], words)[:, 0]]
    counts = suite.counts(split)
    longest = torch.tensor(
        [
            int(bodies.lengths[int(first[t]) : int(first[t] + counts[t])].max())
            for t in tasks[chosen].tolist()
        ]
    )
    order = chosen[(head + longest).argsort(stable=True)]
    most = counts[tasks[chosen]] if suite.eval_samples is None else suite.eval_samples
    samples = int(torch.as_tensor(most).max().clamp(max=int(counts[tasks[chosen]].max())))
    yield from order.split(max(1, suite.eval_batch // samples))


def _group(
    suite: CausalSuite,
    target: Any,
    weights: Weights,
    tasks: Tensor,
    split: str,
    wordings: Tensor | None,
    metrics: Sequence[str],
    ranked: bool,
) -> dict[str, Tensor]:
    """Metrics of a few networks."""
    writes = [name for name in metrics if name != "rank"]
    batch = rows_at_once(suite, tasks, split) if ranked else suite.eval_batch
    total: dict[str, Tensor] = {}
    count = torch.zeros(len(tasks))
    for rows, valid in suite.evaluation_rows(tasks, split, batch):
        instances = [
            suite.tasks[task].instances[split][row]
            for task, numbers in zip(tasks.tolist(), rows.tolist(), strict=True)
            for row in numbers
        ]
        state = read_prompts(suite, target, weights, tasks, rows, split, wordings)
        hits: dict[str, list[float]] = {}
        if ranked:
            choices = [
                suite.tasks[task].choices(instance)
                for task, part in zip(
                    tasks.tolist(), _blocks(instances, rows.shape[1]), strict=True
                )
                for instance in part
            ]
            scores = choice_scores(
                suite, target, weights, tasks, rows, choices, split, wordings, state
            )
            hits["rank"] = [
                float(is_right(options[best], i.outputs))
                for options, best, i in zip(
                    choices, scores.argmax(1).tolist(), instances, strict=True
                )
            ]
        if writes:
            texts = greedy_answers(suite, target, weights, tasks, rows, split, wordings, state)
            answers = [said(suite, t, i) for t, i in zip(texts, instances, strict=True)]
            pairs = list(zip(answers, instances, strict=True))
            if "exact" in writes:
                hits["exact"] = [float(is_right(a, i.outputs)) for a, i in pairs]
            if "rouge_l" in writes:
                hits["rouge_l"] = [rouge_l(a, i.outputs) for a, i in pairs]
        for name, values in hits.items():
            sums = (torch.tensor(values).view_as(valid) * valid).sum(1)
            total[name] = total.get(name, torch.zeros(len(tasks))) + sums
        count += valid.sum(1)
    return {name: values / count for name, values in total.items()}


@singledispatch
def read_prompts(
    suite: CausalSuite,
    target: Any,
    weights: Weights,
    tasks: Tensor,
    rows: Tensor,
    split: str,
    wordings: Tensor | None = None,
) -> Any:
    """The prompts, read once for all metrics where the target can go on from there; else None.

    What is returned, by kind of suite, is the `state` of `greedy_answers` and `choice_scores`.
    """
    if not keeps_state(target):
        return None
    ids, length, _ = suite.sequences(tasks, rows, split, None, wordings)
    return prefill(suite, target, weights, ids, length, len(tasks))


def _blocks(instances: list[Instance], size: int) -> list[list[Instance]]:
    return [instances[i : i + size] for i in range(0, len(instances), size)]


def said(suite: CausalSuite, text: str, instance: Instance) -> str:
    """What counts of a written answer.

    After a plain prompt the first line alone: a base model does not know that the answer ends
    there, and goes on with another input.
    """
    if suite.prompt.template != "plain" or any("\n" in output for output in instance.outputs):
        return text
    return first_line(text)
