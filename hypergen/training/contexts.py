"""Prefixes from demonstrations and descriptions: the data of `configs/context_prefix_*.yaml`."""

from __future__ import annotations

from typing import Any, Literal

from hypergen._utils.errors import UsageError
from hypergen.conditions import ContextEncoder
from hypergen.training.demos import DemoDataModule
from hypergen.training.language import LanguageDataModule
from hypergen.training.parts import Parts


class ContextDataModule(DemoDataModule):
    """As `DemoDataModule`, with the target's own model as the reader of the condition.

    Description and demonstrations are read as they would stand in the prompt, by the frozen model,
    and become the keys and values of `slots` virtual tokens: what `ContextPrefix` starts from. They
    are read anew for each batch, since every draw is another context: one forward pass of about
    `tasks_per_batch` · (10 to 20 tokens a demonstration), without gradients.

    With `prompt: {description: true}` and `prompt_dropout: 1` the prompt is the input alone, behind
    the prefix, and evaluation can still ask the frozen model with everything in its prompt.

    Args:
        slots: Virtual tokens of the prefix.
        reduce: See `ContextEncoder`.
        chunk_size: Likewise.
        method: `{num_virtual_tokens: slots}`, which is what it is when not given.
        encoder: Not to be chosen here.
        **demos: Further arguments of `DemoDataModule`.

    Raises:
        UsageError: An option is out of range or does not fit the others.
    """

    def __init__(
        self,
        slots: int = 128,
        reduce: Literal["mean", "max"] = "mean",
        chunk_size: int = 1024,
        method: dict[str, Any] | None = None,
        encoder: Literal["context"] = "context",
        **demos: Any,
    ) -> None:
        if encoder != "context":
            raise UsageError(f"encoder is {encoder!r}: the target's own model reads here")
        wanted = {"num_virtual_tokens": slots}
        if method not in (None, wanted):
            raise UsageError(f"method is {method}: a context becomes a prefix, {wanted}")
        super().__init__(method=wanted, encoder="hashing", **demos)
        self.slots, self.reduce, self.chunk_size = slots, reduce, chunk_size

    def build(self) -> Parts:
        """As `LanguageDataModule.build`, with a `ContextEncoder` of the suite's own model."""
        suite, _, target = LanguageDataModule.build(self)
        loaded = suite.language_model  # type: ignore[attr-defined]
        encoder = ContextEncoder.from_model(
            loaded.model,
            loaded.tokenizer,
            model=self.model,
            dtype=self.dtype,
            slots=self.slots,
            takes="fused" if self.describe else "demos",
            reduce=self.reduce,
            chunk_size=self.chunk_size,
            # Prompts that may hold a description begin with the line break that follows it.
            end="" if suite.prompt.description else "\n\n",  # type: ignore[attr-defined]
            cache_size=self.tasks_per_batch,
        )
        return suite, encoder, target
