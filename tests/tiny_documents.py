"""A tiny causal model in a folder, plain text, stories, and an encoder of documents without it."""

from __future__ import annotations

import json
from pathlib import Path

import tiny_language as tiny

from hypergen.conditions import HashingEncoder

WORDS = [*tiny.ANIMALS, *tiny.THINGS]


class HashedDocuments(HashingEncoder):
    """Documents as the hashes of their words."""

    input_name = "document"


class HashedDemos(HashingEncoder):
    """Demonstrations as the hashes of their words."""

    input_name = "demos"

    def forward(self, inputs):
        return super().forward([f"{d[0]['input']} = {d[0]['output']}" for d in inputs])


class Trained(HashedDocuments):
    """One that is trained."""

    def __init__(self, dim: int = 16, max_length: int = 512) -> None:
        import torch

        super().__init__(dim, max_length)
        self.scale = torch.nn.Parameter(torch.ones(dim))

    def forward(self, inputs):
        from hypergen.conditions import Condition

        found = super().forward(inputs)
        return Condition.from_tokens(found.tokens * self.scale, found.mask)


def sentence(number: int, words: int = 40) -> str:
    return " ".join(WORDS[(number * 7 + i * (number + 1)) % len(WORDS)] for i in range(words))


def save_model(folder: Path) -> str:
    made = tiny.causal()
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return str(folder)


def write_text(folder: Path) -> str:
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.txt").write_text("\n".join(sentence(4 * i + j) for j in range(3)))
    return str(folder)


def stories(count: int = 6, questions: int = 4) -> list[dict]:
    out = []
    for i in range(count):
        asked = []
        for q in range(questions):
            options = [WORDS[(i + q + o * 5) % 16] for o in range(4)]
            asked.append(
                {
                    "question": f"is it {WORDS[q]} ?",
                    "options": options,
                    "answer": "ABCD"[(i + q) % 4],
                }
            )
        split = ("train", "train", "dev", "test", "test", "test")[i % 6]
        out.append(
            {"id": f"s{i}", "split": split, "story": sentence(i, 20 + i), "questions": asked}
        )
    return out


def write_stories(path: Path, rows: list[dict] | None = None) -> str:
    path.write_text("\n".join(map(json.dumps, rows or stories())))
    return str(path)
