"""Text tasks learned from demonstrations: the data module of `configs/hypertuning_smollm2.yaml`."""

from __future__ import annotations

from typing import Any, Literal

from hypergen._utils.errors import UsageError
from hypergen.conditions import ConditionEncoder, DemoEncoder, FusedEncoder
from hypergen.training.demo_bank import DemoBank
from hypergen.training.language import LanguageDataModule
from hypergen.training.parts import Parts


class DemoDataModule(LanguageDataModule):
    """Text tasks whose condition is a few of their own instances, beside a description or alone.

    Phang et al., "HyperTuning: Toward Adapting Large Language Models without Back-propagation",
    ICML 2023, arXiv:2211.12485: the generator reads demonstrations and the frozen model, which does
    not see them, answers other instances of the task. For each network of a batch k demonstrations
    are drawn, k uniform from `demos_min` to `demos_max` (fewer where a task has fewer); they are
    never among the instances of its loss. Batches are `raw` texts: the learned maps of the encoder
    are trained along, and each text goes through its frozen part once.

    Validation reads each task's first description and `demos_shown` demonstrations.

    Args:
        demos_min: Fewest demonstrations of a network.
        demos_max: Most of them.
        demos_shown: Demonstrations in validation and testing.
        demo_pool: Most instances of a task that serve as demonstrations, drawn by `seed`: what is
            encoded and kept. They are instances of the loss too, at other times.
        demo_tokens: `"pooled"` or `"words"`, see `DemoEncoder`.
        describe: Whether the condition holds a description too.
        description_dropout: Share of the networks whose condition lacks it; those without a
            demonstration keep it.
        width: Width of the condition's tokens.
        encoder: The frozen encoder of texts, of descriptions and demonstrations: see
            `LanguageDataModule`.
        prompt: See `LanguageDataModule`; without examples, which would be demonstrations.
        **language: Further arguments of `LanguageDataModule`.

    Raises:
        UsageError: An option is out of range or does not fit the others.
    """

    def __init__(
        self,
        demos_min: int = 0,
        demos_max: int = 16,
        demos_shown: int = 4,
        demo_pool: int = 64,
        demo_tokens: Literal["pooled", "words"] = "pooled",
        describe: bool = True,
        description_dropout: float = 0.0,
        width: int = 256,
        encoder: Literal["text", "hashing"] | ConditionEncoder = "text",
        prompt: dict[str, Any] | None = None,
        **language: Any,
    ) -> None:
        super().__init__(encoder=encoder, prompt=prompt, **language)
        if not 0 <= demos_min <= demos_max or demos_max < 1:
            raise UsageError(
                f"demos_min={demos_min} and demos_max={demos_max}: take 0 or more, and at least as "
                "many at most as at least"
            )
        if not describe and demos_min < 1:
            raise UsageError("without a description demos_min must be 1 or more")
        for name, value in (("demos_shown", demos_shown), ("demo_pool", demo_pool)):
            if value < (0 if describe and name == "demos_shown" else 1):
                raise UsageError(f"{name}={value} is too few")
        if not 0 <= description_dropout < 1:
            raise UsageError(
                f"description_dropout={description_dropout} must be at least 0 and below 1"
            )
        if (prompt or {}).get("examples"):
            raise UsageError(
                "prompt.examples: demonstrations are for the generator here, and not in the prompt"
            )
        self.demos_min, self.demos_max, self.demos_shown = demos_min, demos_max, demos_shown
        self.demo_pool, self.demo_tokens = demo_pool, demo_tokens
        self.describe, self.width = describe, width
        self.description_dropout = description_dropout

    def build(self) -> Parts:
        """As `LanguageDataModule.build`, with an encoder of demonstrations around that of texts."""
        suite, text, target = super().build()
        demos = DemoEncoder(text, self.width, self.demo_tokens)
        if not self.describe:
            return suite, demos, target
        return suite, FusedEncoder({"text": text, "demos": demos}, self.width), target

    def bank(self, tasks: str, wordings: str) -> DemoBank:
        """Descriptions and demonstrations of a split of tasks; see `TaskDataModule.bank`."""
        key = (tasks, wordings)
        found = self._banks.get(key)
        if not isinstance(found, DemoBank):
            found = DemoBank(
                self.encoder,
                self.suite.descriptions[wordings],
                self._described(*key),
                self.suite.tasks,  # type: ignore[attr-defined]
                least=self.demos_min,
                most=self.demos_max,
                shown=self.demos_shown,
                pool=self.demo_pool,
                describe=self.describe,
                dropout=self.description_dropout,
                seed=self.seed,
                cache=self.cache,
            )
            self._banks[key] = found
        return found
