"""Seq2SeqSuite: text tasks for an encoder–decoder model that writes the answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import LanguageModel
from hypergen.zoo.language.answers import with_forward
from hypergen.zoo.language.causal import CausalSuite
from hypergen.zoo.language.prompted import start_tokens
from hypergen.zoo.language.tasks import TextTask
from hypergen.zoo.language.tokens import IGNORED, Ragged, encode, join

if TYPE_CHECKING:
    from hypergen.zoo.language.variants import InContext, WithoutDescription


class Seq2SeqSuite(CausalSuite):
    """Tasks whose answer a frozen encoder–decoder model (T5, BART, …) writes.

    The encoder reads the prompt, with what the tokenizer puts around a text; the decoder writes the
    answer and the token that ends it. So labels, logits and positions are those of answers alone.
    Losses and scores are those of `CausalSuite`, which see; decoding and ranking by
    `hypergen.zoo.language.seq2seq_decoding` encode every prompt once.

    An adapter may sit on any module of encoder and decoder, cross-attention included: both get the
    same rows, in blocks by network.

    Args:
        model: An encoder–decoder model.
        tasks: See `TextSuite`.
        **options: Those of `CausalSuite`, without `pack`.

    Raises:
        UsageError: The model does not say which token its decoder starts with, or `pack` is set.
    """

    kind = "seq2seq"
    packs = False

    def __init__(
        self,
        model: str | LanguageModel,
        tasks: str | Path | Sequence[TextTask] | None,
        **options: Any,
    ) -> None:
        super().__init__(model, tasks, **options)
        if self.pack:
            raise UsageError("pack: an encoder reads every sample by itself, leave it out")
        config, tokenizer = self.language_model.model.config, self.language_model.tokenizer
        start = getattr(config, "decoder_start_token_id", None)
        if start is None:
            raise UsageError(
                f"model {self.language_model.name!r} does not say which token its decoder starts "
                "with: set decoder_start_token_id in its config.json"
            )
        # BART writes its BOS token before a text, T5 nothing: given, and never predicted.
        self.begin = torch.tensor([start, *start_tokens(tokenizer)])
        # What the tokenizer puts behind a text ends the prompt.
        end = encode(tokenizer, ["a"], special=True)[0][len(start_tokens(tokenizer)) :]
        end = end[len(encode(tokenizer, ["a"])[0]) :]
        self.tail = Ragged.of([[*self.tail.values.tolist(), *end]])

    def _network(self, model: nn.Module) -> nn.Module:
        return answers_alone(model)

    def decoder_inputs(self, answers: tuple[Ragged, Tensor]) -> tuple[Tensor, Tensor]:
        """What the decoder reads to predict answers, and what it should say.

        Args:
            answers: Table and rows `[N]`.

        Returns:
            Tokens `[N, P - 1 + K]` behind P tokens that begin every answer, and labels `[N, K]`.
        """
        ids, bounds = join([answers], self.pad)
        inside = torch.arange(ids.shape[1]) < bounds[-1][:, None]
        begin = self.begin.expand(len(ids), -1)
        return torch.cat([begin, ids[:, :-1]], 1), ids.masked_fill(~inside, IGNORED)

    def batch(
        self, tasks: Tensor, rows: Tensor, split: str = "train", wordings: Tensor | None = None
    ) -> dict[str, Any]:
        """Prompts for the encoder and answers for the decoder; see `TextSuite.batch`."""
        _, answers, first = self.table(split)
        number = (first[tasks][:, None] + rows).flatten()
        ids, length, _ = self.sequences(tasks, rows, split, None, wordings)
        decoder, labels = self.decoder_inputs((answers, number))
        return {
            "inputs": {
                **self.to_device(
                    {
                        "input_ids": ids,
                        "attention_mask": (torch.arange(ids.shape[1]) < length[:, None]).long(),
                        "decoder_input_ids": decoder,
                    }
                ),
                "answers_alone": labels.shape[1],
            },
            "labels": labels.to(self.device),
            "blocks": len(tasks),
        }

    def _variants(self) -> tuple[type[WithoutDescription], type[InContext]]:
        from hypergen.zoo.language.seq2seq_variants import InContext, WithoutDescription

        return WithoutDescription, InContext


def answers_alone(model: nn.Module) -> nn.Module:
    """A view of an encoder–decoder model that can return the logits of answers alone.

    As `hypergen.zoo.language.answers.answer_only`, it shares every tensor with the model and has
    the same forward, with one more argument: `answers_alone`, a number K, after which it keeps no
    keys and values and returns the decoder's last logits, `[N, K, V]`.

    Args:
        model: An encoder–decoder model of transformers.

    Raises:
        UsageError: The model has no output layer.
    """
    return with_forward(model, _forward)


def _forward(self: Any, *args: Any, answers_alone: int | None = None, **kwargs: Any) -> Any:
    forward = type(self).forward
    if answers_alone is None:
        return forward(self, *args, **kwargs)
    return forward(self, *args, **{**kwargs, "use_cache": False}).logits[:, -answers_alone:]
