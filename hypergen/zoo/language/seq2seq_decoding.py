"""Answers of encoder–decoder models: prompts are encoded once, for decoding and for ranking."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hypergen.specs import Weights, cache_argument
from hypergen.zoo.language import decoding, ranking, scoring
from hypergen.zoo.language.decoding import LineEnds
from hypergen.zoo.language.prefill import keeps_state
from hypergen.zoo.language.ranking import distinct_choices
from hypergen.zoo.language.seq2seq import Seq2SeqSuite
from hypergen.zoo.language.tokens import Ragged


@dataclass(frozen=True, eq=False)
class Encoded:
    """Prompts that a network's encoder has read, and its decoder up to the first word.

    Attributes:
        logits: `[N, V]`, what an answer begins with.
        cache: Keys and values of the decoder, those of the prompt included.
        hidden: `[N, L, D]`, last hidden states of the encoder.
        mask: `[N, L]`, 1 at tokens of the prompt.
    """

    logits: Tensor
    cache: Any
    hidden: Tensor
    mask: Tensor

    def branch(self, copies: int = 1) -> Encoded:
        """The same, to go on from without changing this one; `copies` rows of each row."""
        cache = copy.copy(self.cache)
        for name in ("self_attention_cache", "cross_attention_cache"):
            part = copy.copy(getattr(cache, name))
            part.layers = [copy.copy(layer) for layer in part.layers]
            setattr(cache, name, part)
        cache.is_updated = dict(cache.is_updated)
        if copies == 1:
            return replace(self, cache=cache)
        cache.batch_repeat_interleave(copies)
        hidden, mask = (t.repeat_interleave(copies, 0) for t in (self.hidden, self.mask))
        return replace(self, cache=cache, hidden=hidden, mask=mask)


@scoring.read_prompts.register(Seq2SeqSuite)
def _read(
    suite: Seq2SeqSuite,
    target: Any,
    weights: Weights,
    tasks: Tensor,
    rows: Tensor,
    split: str,
    wordings: Tensor | None = None,
) -> Encoded | None:
    """The prompts, encoded once where the target can go on from there."""
    if not keeps_state(target):
        return None
    inputs = _prompts(suite, tasks, rows, split, wordings)
    begin = suite.begin.expand(len(inputs["input_ids"]), -1)
    given = suite.to_device({**inputs, "decoder_input_ids": begin})
    output = target(weights, {**given, "use_cache": True})
    return Encoded(
        output.logits[:, -1],
        getattr(output, cache_argument(suite.network)),
        output.encoder_last_hidden_state,
        given["attention_mask"],
    )


def _prompts(
    suite: Seq2SeqSuite, tasks: Tensor, rows: Tensor, split: str, wordings: Tensor | None
) -> dict[str, Tensor]:
    """What the encoder reads."""
    ids, length, _ = suite.sequences(tasks, rows, split, None, wordings)
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(ids.shape[1]) < length[:, None]).long(),
    }


def _go_on(
    suite: Seq2SeqSuite, target: Any, weights: Weights, state: Encoded, tokens: Tensor
) -> tuple[Tensor, Encoded]:
    """Logits `[N, K, V]` at further tokens `[N, K]` of the decoder, and the state after them.

    The state's cache is used up.
    """
    from transformers.modeling_outputs import BaseModelOutput

    name = cache_argument(suite.network)
    inputs = {
        "attention_mask": state.mask,
        "decoder_input_ids": tokens.to(suite.device),
        "encoder_outputs": BaseModelOutput(last_hidden_state=state.hidden),
        name: state.cache,
        "use_cache": True,
    }
    output = target(weights, inputs)
    return output.logits, replace(state, cache=getattr(output, name), logits=output.logits[:, -1])


@decoding.write.register(Seq2SeqSuite)
def _write(
    suite: Seq2SeqSuite,
    target: Any,
    weights: Weights,
    tasks: Tensor,
    rows: Tensor,
    split: str,
    wordings: Tensor | None,
    state: Encoded | None,
    steps: int,
    ends: LineEnds,
) -> Tensor:
    """Greedy tokens `[N, T]`, from kept keys and values where there are some."""
    state = state or _read(suite, target, weights, tasks, rows, split, wordings)
    if state is None:
        return _repeated(suite, target, weights, tasks, rows, split, wordings, steps, ends)
    state = state.branch()
    written = [state.logits.argmax(-1).cpu()]
    for _ in range(steps - 1):
        if ends.all_after(written[-1]):
            break
        _, state = _go_on(suite, target, weights, state, written[-1][:, None])
        written.append(state.logits.argmax(-1).cpu())
    return torch.stack(written, 1)


def _repeated(
    suite: Seq2SeqSuite,
    target: Any,
    weights: Weights,
    tasks: Tensor,
    rows: Tensor,
    split: str,
    wordings: Tensor | None,
    steps: int,
    ends: LineEnds,
) -> Tensor:
    """Encoder and decoder once for each token, for targets that keep no state."""
    prompts = _prompts(suite, tasks, rows, split, wordings)
    ids = suite.begin.expand(len(prompts["input_ids"]), -1)
    for _ in range(steps):
        inputs = suite.to_device({**prompts, "decoder_input_ids": ids})
        logits = target(weights, {**inputs, "answers_alone": 1})
        token = logits[:, -1].argmax(-1).cpu()
        ids = torch.cat([ids, token[:, None]], 1)
        if ends.all_after(token):
            break
    return ids[:, len(suite.begin) :]


@ranking.choice_scores.register(Seq2SeqSuite)
@torch.no_grad()
def _choice_scores(
    suite: Seq2SeqSuite,
    target: Any,
    weights: Weights,
    tasks: Tensor,
    rows: Tensor,
    choices: list[tuple[str, ...]],
    split: str = "test",
    wordings: Tensor | None = None,
    state: Encoded | None = None,
) -> Tensor:
    """As `hypergen.zoo.language.ranking.choice_scores`: each choice is a row of the decoder.

    A decoder that counts distances between tokens would see them between choices in one sequence.
    """
    words, encoded = distinct_choices(suite, choices)
    most = max(len(options) for options in choices)
    # Rows in blocks by network: the choices of an instance stand together, the last one repeated.
    index = torch.tensor(
        [words[options[min(c, len(options) - 1)]] for options in choices for c in range(most)]
    )
    decoder, labels = suite.decoder_inputs((Ragged.of(encoded), index))
    state = state or _read(suite, target, weights, tasks, rows, split, wordings)
    if state is None:
        prompts = _prompts(suite, tasks, rows, split, wordings)
        prompts = {k: v.repeat_interleave(most, 0) for k, v in prompts.items()}
        inputs = suite.to_device({**prompts, "decoder_input_ids": decoder})
        logits = target(weights, {**inputs, "answers_alone": labels.shape[1]})
    else:
        logits = state.logits.repeat_interleave(most, 0)[:, None]
        tokens = decoder[:, len(suite.begin) :]
        if tokens.shape[1]:
            rest, _ = _go_on(suite, target, weights, state.branch(most), tokens)
            logits = torch.cat([logits, rest], 1)
    batch = {"labels": labels.to(suite.device), "blocks": 1}
    losses, count = suite.sample_losses(logits, batch)
    scores = -losses.cpu().view(-1, most)
    if suite.normalize_length:
        scores = scores / count.cpu().view(-1, most)
    real = torch.tensor([[c < len(options) for c in range(most)] for options in choices])
    return scores.masked_fill(~real, -torch.inf)
