"""How an instance of a task becomes text for a language model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from hypergen._utils.errors import UsageError
from hypergen.zoo.language.tasks import Instance, TextTask

_MARK = "\u2063prompt\u2063"  # invisible separators: no chat template changes them


@dataclass(frozen=True)
class Prompt:
    r"""The parts of a prompt, in their order: head (task), body (input), tail, answer.

    With a description and one example, `"plain"` reads
    `{description}\n\nInput: {input}\nOutput: {output}\n\nInput: {input}\nOutput: {answer}`. The
    chat form puts the same words, the last `Output:` excepted, into a user's turn of the
    tokenizer's chat template; the answer is the assistant's turn.

    The parts are tokenised one by one, so that a description is tokenised once for all instances
    and an instance once for all descriptions. They meet at line breaks, where byte-level
    tokenizers split in any case.

    Attributes:
        description: Whether the prompt holds a description of the task.
        examples: Number of the task's demonstrations in the prompt.
        template: `"plain"` text, or the tokenizer's `"chat"` template.
    """

    description: bool = False
    examples: int = 0
    template: Literal["plain", "chat"] = "plain"

    def __post_init__(self) -> None:
        if self.template not in ("plain", "chat"):
            raise UsageError(f"template is {self.template!r}: use 'plain' or 'chat'")
        if self.examples < 0:
            raise UsageError(f"examples is {self.examples}: use 0 or more")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON."""
        return asdict(self)

    def head(self, task: TextTask, description: str, tokenizer: Any = None) -> str:
        """What comes before the input.

        Raises:
            UsageError: The task has fewer examples than asked for, or the tokenizer has no chat
                template.
        """
        if self.examples > len(task.examples):
            raise UsageError(
                f"task {task.name!r} has {len(task.examples)} examples, {self.examples} are asked "
                "for: lower examples"
            )
        parts = [description.strip()] if self.description else []
        shown = task.examples[: self.examples]
        parts += [f"Input: {e.input}\nOutput: {e.outputs[0]}" for e in shown]
        return self.frame(tokenizer)[0] + "\n\n".join(parts)

    def body(self, instance: Instance) -> str:
        """The input."""
        lead = "\n\n" if self._has_head else ""
        return f"{lead}Input: {instance.input}"

    def tail(self, tokenizer: Any = None) -> str:
        """What comes between the input and the answer."""
        return "\nOutput:" if self.template == "plain" else self.frame(tokenizer)[1]

    def answer(self, output: str) -> str:
        """The answer, without the token that ends it."""
        return f" {output}" if self.template == "plain" else output

    def text(
        self, task: TextTask, instance: Instance, description: int = 0, tokenizer: Any = None
    ) -> str:
        """The whole prompt, to look at: head, body and tail."""
        head = self.head(task, task.descriptions[description], tokenizer)
        return head + self.body(instance) + self.tail(tokenizer)

    @property
    def _has_head(self) -> bool:
        return self.description or self.examples > 0

    def frame(self, tokenizer: Any) -> tuple[str, str]:
        """What the chat template puts around the user's words."""
        if self.template == "plain":
            return "", ""
        if getattr(tokenizer, "chat_template", None) is None:
            raise UsageError("the tokenizer has no chat template: use template='plain'")
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": _MARK}], tokenize=False, add_generation_prompt=True
        )
        before, _, after = text.partition(_MARK)
        return before, after
