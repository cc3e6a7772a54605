"""Models of a few thousand weights, a tokenizer of a few words, and tasks in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from hypergen.zoo.language import LanguageModel

ANIMALS = ("cat", "dog", "cow", "hen", "fox", "owl", "pig", "bee")
THINGS = ("cup", "car", "pen", "box", "hat", "bed", "key", "toy")
SENTENCES = """Input : Output , . is it an animal or a thing ? say the word again pick one of
two yes no very big thing animal first user assistant"""
WORDS = sorted({*ANIMALS, *THINGS, *SENTENCES.split()})
SPECIAL = ("<pad>", "<unk>", "</s>", "[CLS]", "[SEP]")


def tokenizer(special: bool = False) -> Any:
    """Splits at spaces and signs; with `special`, puts [CLS] and [SEP] around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="</s>",
        model_max_length=128,
    )


def causal(attention: str = "sdpa") -> LanguageModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        attn_implementation=attention,
    )
    return LanguageModel(LlamaForCausalLM(config).eval(), tokenizer(), "tiny-llama", "causal")


def encoder() -> LanguageModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    return LanguageModel(model, tokenizer(True), "tiny-bert", "encoder")


def t5() -> LanguageModel:
    """Counts distances between tokens; its decoder starts with the padding."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(SPECIAL) + len(WORDS),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
        initializer_factor=1.0,
    )
    made = T5ForConditionalGeneration(config).eval()
    return LanguageModel(made, tokenizer(), "tiny-t5", "seq2seq")


def bart() -> LanguageModel:
    """Numbers tokens; tokenizer and decoder put a token before a text."""
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=128,
        init_std=0.3,
        pad_token_id=0,
        bos_token_id=3,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )
    made = BartForConditionalGeneration(config).eval()
    return LanguageModel(made, tokenizer(True), "tiny-bart", "seq2seq")


def instance(text: str, *outputs: str, split: str | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"id": text, "input": text, "output": list(outputs)}
    return row if split is None else {**row, "split": split}


def kinds(swap: bool = False) -> dict[str, Any]:
    """Animal or thing, a closed set; `swap` makes another task of it."""
    labels = ["animal", "very big thing"]
    rows = [
        instance(f"{size}{word}", label, split="test" if i % 4 == 3 else "train")
        for label, words in zip(labels[:: -1 if swap else 1], (ANIMALS, THINGS), strict=True)
        for size in ("", "big ")
        for i, word in enumerate(words)
    ]
    return {
        "Definition": ["is it an animal or a thing ?", "say animal or very big thing ."],
        "Categories": ["Kinds"],
        "Positive Examples": [{"input": "cat", "output": "animal", "explanation": ""}],
        "Negative Examples": [],
        "Labels": labels,
        "Instances": rows,
    }


def first_of_two() -> dict[str, Any]:
    """Inputs that list the choices."""
    pairs = zip(ANIMALS, THINGS, strict=True)
    rows = [
        instance(f"{a} , {b}".replace(" ,", ","), a, split="test" if i % 4 == 3 else "train")
        for i, (a, b) in enumerate(pairs)
    ]
    return {
        "Definition": ["pick the first of two", "say the first word", "the first", "one of two"],
        "Categories": ["Lists"],
        "Instances": rows,
    }


def echo() -> dict[str, Any]:
    """Open outputs, in the layout of the real repository: no split, no labels."""
    return {
        "Definition": ["say the word again"],
        "Categories": ["Copying"],
        "Positive Examples": [{"input": "cat", "output": "cat", "explanation": "again"}],
        "Negative Examples": [{"input": "cat", "output": "dog", "explanation": "wrong"}],
        "Instances": [instance(w, w, w.upper()) for w in (*ANIMALS, *THINGS)],
    }


def write_tasks(folder: Path, **tasks: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, task in tasks.items():
        (folder / f"{name}.json").write_text(json.dumps(task))
    return folder


def all_tasks(folder: Path) -> Path:
    return write_tasks(
        folder, kinds=kinds(), swapped=kinds(True), first=first_of_two(), echo=echo()
    )
