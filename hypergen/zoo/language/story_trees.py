"""Stories, their questions and the options of these, as trees of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hypergen.zoo.language.branches import Branch
from hypergen.zoo.language.prompted import start_tokens
from hypergen.zoo.language.stories import Story
from hypergen.zoo.language.tokens import encode


class StoryTrees:
    """Tokens of stories: the parts are tokenised one by one, each once.

    Args:
        tokenizer: A fast transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.start = start_tokens(tokenizer)
        self.end: int | None = tokenizer.eos_token_id
        found = (tokenizer.pad_token_id, self.end, 0)
        self.pad = int(next(token for token in found if token is not None))
        self._known: dict[str, list[int]] = {}

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(new, encode(self.tokenizer, new), strict=True))
        return [self._known[text] for text in texts]

    def choices(self, story: Story, told: bool = False) -> list[Branch]:
        """All options of all questions, each with labels for all of its tokens.

        Args:
            story: The story.
            told: Whether the story stands before the questions.
        """
        tree = self._root(story, told)
        questions = self.tokens([q.text for q in story.questions])
        options = [self.tokens([f" {o}" for o in q.options]) for q in story.questions]
        for question, own in zip(questions, options, strict=True):
            at = len(tree)
            tree.append(self._question(question, told))
            tree += [Branch(option, at, len(option)) for option in own]
        return tree

    def answers(self, story: Story, numbers: Sequence[int], told: bool = False) -> list[Branch]:
        """The right options of some questions, with the token that ends a text.

        Args:
            story: The story.
            numbers: Numbers of the questions.
            told: Whether the story stands before the questions.
        """
        tree = self._root(story, told)
        asked = [story.questions[number] for number in numbers]
        questions = self.tokens([q.text for q in asked])
        answers = self.tokens([f" {q.options[q.answer]}" for q in asked])
        end = [] if self.end is None else [self.end]
        for question, answer in zip(questions, answers, strict=True):
            tree.append(self._question(question, told))
            tree.append(Branch([*answer, *end], len(tree) - 1, len(answer) + len(end)))
        return tree

    def _root(self, story: Story, told: bool) -> list[Branch]:
        return [Branch([*self.start, *self.tokens([story.text])[0]])] if told else []

    def _question(self, tokens: list[int], told: bool) -> Branch:
        return Branch(tokens, 0) if told else Branch([*self.start, *tokens])


def option_table(story: Story, scores: Tensor) -> Tensor:
    """Scores of all options in a row `[O]` → `[Q, C]`, minus infinity where there is no option."""
    counts = [len(question.options) for question in story.questions]
    rows = scores.split(counts)
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=-torch.inf)


def right_options(story: Story, scores: Tensor) -> Tensor:
    """Whether the right option of each question has the highest score, `[Q]`.

    Args:
        story: The story.
        scores: Those of all options in a row, `[O]`.
    """
    answers = torch.tensor([question.answer for question in story.questions])
    return option_table(story, scores).argmax(1) == answers
