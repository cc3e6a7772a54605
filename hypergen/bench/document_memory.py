"""A small language model that reads long documents, and the peak memory of doing so.

`python -m hypergen.bench.document_memory WAY TOKENS` prints the peak of a process in MiB.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.threads import one_thread
from hypergen.bench.peak import measure_peak, peak_mib
from hypergen.conditions import DocumentEncoder
from hypergen.generators import GenerativeAdapter
from hypergen.specs import LoRASpec

WORDS = 512
CHUNK = 128
BATCH = 4


class Reading:
    """A random Llama of two layers, a tokenizer of numbered words, and an adapter generator."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=WORDS + 1,
            max_position_embeddings=CHUNK,
        )
        model: Any = LlamaForCausalLM(config).eval().requires_grad_(False)
        vocabulary = {"?": 0, **{f"w{i}": i + 1 for i in range(WORDS)}}
        core = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
        core.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?")
        spec = LoRASpec(model, ["q_proj", "o_proj", "down_proj"], r=8)
        self.encoder = DocumentEncoder.from_model(
            model, tokenizer, spec.modules, chunk_size=CHUNK, batch_size=BATCH
        )
        self.generator = GenerativeAdapter(spec, self.encoder, state_rank=64).eval()
        self.body = model.base_model

    def lines(self, tokens: int) -> Iterator[str]:
        """A document, sixteen words a line."""
        for start in range(0, tokens, 16):
            count = min(16, tokens - start)
            yield " ".join(f"w{(start + i) * 7919 % WORDS}" for i in range(count)) + "\n"

    def ids(self, tokens: int) -> list[Tensor]:
        """The same document as token numbers, in the encoder's batches."""
        words = torch.arange(tokens) * 7919 % WORDS + 1
        return list(words.unflatten(0, (-1, CHUNK)).split(BATCH))


def held_bytes() -> int:
    """Memory of the state that a document is read into."""
    return Reading().generator.state().nbytes


def measure(way: str, tokens: int) -> float:
    """Peak of a fresh process that reads a document, in MiB.

    Args:
        way: `"stream"`, `"whole"` (all hidden states at once), or `"build"` (reads nothing).
        tokens: Length of the document.

    Raises:
        RunError: The process failed; says how.
    """
    return measure_peak("hypergen.bench.document_memory", way, str(tokens))


def main(way: str, tokens: str) -> None:
    """Reads and prints the peak."""
    with one_thread(), torch.no_grad():
        made = Reading()
        lines = made.lines(int(tokens))
        if way == "stream":
            made.generator.read(lines, progress=False).weights()
        elif way == "whole":
            made.generator(made.encoder("".join(lines)))
        elif way != "build":
            raise KeyError(way)
    print(peak_mib())


if __name__ == "__main__":
    main(*sys.argv[1:])
