"""Stories with multiple-choice questions, in the JSONL form of MCTest.

Richardson, Burges and Renshaw, "MCTest: A Challenge Dataset for the Open-Domain Machine
Comprehension of Text", EMNLP 2013.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypergen._utils.errors import UsageError, did_you_mean


class StoryFileError(UsageError):
    """A file of stories cannot be read.

    Attributes:
        path: The file.
        line: The line, from 1; 0 where the file as a whole is wrong.
        field: The key that is missing or wrong, such as `questions[2].answer`.
    """

    def __init__(self, path: Path, line: int, field: str, what: str) -> None:
        place = f"{path}, line {line}" if line else f"{path}"
        super().__init__(f"{place}: field {field!r} {what}" if field else f"{place} {what}")
        self.path, self.line, self.field = path, line, field


@dataclass(frozen=True)
class Question:
    """A question, what to choose from, and the number of the right option (from 0)."""

    question: str
    options: tuple[str, ...]
    answer: int

    @property
    def text(self) -> str:
        """How it is asked behind a story (or behind nothing)."""
        return f"\n\nQuestion: {self.question}\nAnswer:"


@dataclass(frozen=True)
class Story:
    """A story and its questions.

    Attributes:
        id: Its name, once in the file.
        split: `"train"`, `"dev"`, `"test"` or what the file says.
        text: The story.
        questions: At least one.
    """

    id: str
    split: str
    text: str
    questions: tuple[Question, ...]


def read_stories(path: str | Path, split: str | None = None) -> list[Story]:
    """Reads a file of stories, one JSON object a line.

    A line has `id`, `split`, `story` and `questions`; a question has `question`, `options` (two or
    more texts) and `answer`, the letter of the right one.

    Args:
        path: The file.
        split: Only stories of this split.

    Raises:
        StoryFileError: The file is missing or empty, or a line is malformed; names line and field.
        UsageError: No story is of the split.
    """
    path = Path(path)
    stories: list[Story] = []
    seen: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                story = _story(path, number, line)
                if story.id in seen:
                    what = f"is {story.id!r}, which line {seen[story.id]} has too"
                    raise StoryFileError(path, number, "id", what)
                seen[story.id] = number
                stories.append(story)
    except FileNotFoundError:
        raise StoryFileError(path, 0, "", "does not exist") from None
    except OSError as error:
        raise StoryFileError(path, 0, "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StoryFileError(path, 0, "", f"is no UTF-8 text: {error.reason}") from error
    if not stories:
        raise StoryFileError(path, 0, "", "holds no story")
    if split is None:
        return stories
    kept = [story for story in stories if story.split == split]
    if not kept:
        hint = did_you_mean(split, {story.split for story in stories})
        raise UsageError(f"{path} has no story of the split {split!r}.{hint}")
    return kept


def _story(path: Path, line: int, text: str) -> Story:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise StoryFileError(path, line, "", f"is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise StoryFileError(path, line, "", f"holds a {type(data).__name__}, not an object")
    questions = data.get("questions")
    if not isinstance(questions, list) or not questions:
        raise StoryFileError(path, line, "questions", "must be a list of at least one question")
    return Story(
        id=_text(path, line, "id", data),
        split=_text(path, line, "split", data),
        text=_text(path, line, "story", data),
        questions=tuple(
            _question(path, line, f"questions[{i}]", value) for i, value in enumerate(questions)
        ),
    )


def _question(path: Path, line: int, where: str, value: Any) -> Question:
    if not isinstance(value, dict):
        raise StoryFileError(path, line, where, "must be an object")
    question = _text(path, line, f"{where}.question", value)
    options = value.get("options")
    if not isinstance(options, list) or not 2 <= len(options) <= 26:
        raise StoryFileError(path, line, f"{where}.options", "must be a list of 2 to 26 texts")
    for i, option in enumerate(options):
        if not isinstance(option, str) or not option.strip():
            raise StoryFileError(path, line, f"{where}.options[{i}]", "must be a text")
    letters = string.ascii_uppercase[: len(options)]
    answer = value.get("answer")
    if not isinstance(answer, str) or len(answer) != 1 or answer not in letters:
        what = f"is {answer!r}: it must be one of {', '.join(letters)}"
        raise StoryFileError(path, line, f"{where}.answer", what)
    return Question(question, tuple(o.strip() for o in options), letters.index(answer))


def _text(path: Path, line: int, field: str, data: Mapping[str, Any]) -> str:
    value = data.get(field.rpartition(".")[2])
    if not isinstance(value, str) or not value.strip():
        what = "is missing" if value is None else "must be a text that is not empty"
        raise StoryFileError(path, line, field, what)
    return value.strip()
