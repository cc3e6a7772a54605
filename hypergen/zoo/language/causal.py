"""CausalSuite: text tasks for a causal language model that writes the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import Kind, LanguageModel
from hypergen.specs import Weights
from hypergen.zoo.base_call import BaseCall
from hypergen.zoo.language.answers import answer_only
from hypergen.zoo.language.packing import packed_batch, packed_losses
from hypergen.zoo.language.prompted import PromptedSuite
from hypergen.zoo.language.prompts import Prompt
from hypergen.zoo.language.room import make_room, stacks
from hypergen.zoo.language.scoring import is_closed, measure
from hypergen.zoo.language.suite import TargetLike
from hypergen.zoo.language.tasks import TextTask
from hypergen.zoo.language.tokens import IGNORED
from hypergen.zoo.tasks import TaskSuite

if TYPE_CHECKING:
    from hypergen.zoo.language.variants import InContext, WithoutDescription

Scoring = Literal["auto", "exact", "rank"]


class CausalSuite(PromptedSuite):
    """Tasks whose answer a frozen causal language model writes.

    The loss is the mean cross-entropy of the answer's tokens and of the token that ends it; logits
    are computed at their positions only. The score is an exact match of the greedy answer (case and
    trailing punctuation do not count), or whether the likeliest label of the closed set is right.

    Args:
        model: A causal language model.
        tasks: See `TextSuite`.
        prompt: How instances become text; a `Prompt`, or its arguments.
        scoring: `"exact"`, `"rank"`, or `"auto"`: rank where the task's file gives labels.
        normalize_length: Rank labels by their mean instead of their summed log-likelihood.
        max_new_tokens: Most tokens of a greedy answer.
        pack: Whether training batches hold a network's samples behind one another in one sequence,
            so that a description is read once for all of them; see `hypergen.zoo.language.packing`.
            The model must take a 4-D attention mask.
        prompt_dropout: Share of the networks of a training batch whose prompt lacks the
            description, so that what is generated has to say what to do.
        **options: Those of `TextSuite`.
    """

    kind: Kind = "causal"
    packs: ClassVar[bool] = True  # whether `pack` is for this kind of model

    def __init__(
        self,
        model: str | LanguageModel,
        tasks: str | Path | Sequence[TextTask] | None,
        *,
        prompt: Prompt | Mapping[str, Any] | None = None,
        scoring: Scoring = "auto",
        normalize_length: bool = False,
        max_new_tokens: int = 16,
        pack: bool = False,
        prompt_dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(model, tasks, prompt=prompt, pack=pack, **options)
        if scoring not in ("auto", "exact", "rank"):
            raise UsageError(f"scoring is {scoring!r}: use 'auto', 'exact' or 'rank'")
        if not 0 <= prompt_dropout <= 1:
            raise UsageError(f"prompt_dropout is {prompt_dropout}: it is a share, from 0 to 1")
        self.scoring, self.normalize_length = scoring, normalize_length
        self.max_new_tokens = max_new_tokens
        self.prompt_dropout = prompt_dropout
        self._config |= {
            "scoring": scoring,
            "normalize_length": normalize_length,
            "max_new_tokens": max_new_tokens,
            "prompt_dropout": prompt_dropout,
        }
        # The suite with a prompt that says more, whose answers are to be imitated.
        self.teacher: CausalSuite | None = None

    def _network(self, model: nn.Module) -> nn.Module:
        return answer_only(model)

    # -- TextSuite -----------------------------------------------------------------------------

    def train_batch(
        self, tasks: Tensor, rows: Tensor, split: str = "train", wordings: Tensor | None = None
    ) -> dict[str, Any]:
        """As `batch`; packed if the suite packs."""
        if self.pack:
            return packed_batch(self, tasks, rows, split, wordings)
        return self.batch(tasks, rows, split, wordings)

    def batch(
        self, tasks: Tensor, rows: Tensor, split: str = "train", wordings: Tensor | None = None
    ) -> dict[str, Any]:
        """Prompts with their answers; see `TextSuite.batch` and `sequences`."""
        _, answers, first = self.table(split)
        number = (first[tasks][:, None] + rows).flatten()
        ids, start, stop = self.sequences(tasks, rows, split, (answers, number), wordings)
        length = ids.shape[1]
        place = torch.arange(int((stop - start).max()))
        is_answer = place < (stop - start)[:, None]
        # The logits that predict a token stand one position before it.
        at = torch.where(is_answer, start[:, None] + place, 1)
        return {
            "inputs": self.to_device(
                {
                    "input_ids": ids,
                    "attention_mask": (torch.arange(length) < stop[:, None]).long(),
                    "answer_positions": at - 1 - length,
                }
            ),
            "labels": ids.gather(1, at).masked_fill(~is_answer, IGNORED).to(self.device),
            "blocks": len(tasks),
        }

    def sample(
        self,
        tasks: Tensor,
        samples: int,
        generator: torch.Generator,
        split: str = "train",
        avoid: Tensor | None = None,
    ) -> dict[str, Any]:
        """Draws instances and, if the prompt holds one, training descriptions.

        With `pack`, one description for all samples of a network. With a `teacher`, its inputs for
        the same answers are under that name. Instances of `avoid` `[B, K]` (-1: none) are not
        drawn: the demonstrations of each network, say.
        """
        self.check_split(tasks, split)
        shape = (len(tasks), samples)
        counts = self.counts(split)[tasks]
        draw = torch.rand(shape, generator=generator)
        rows = (draw * counts[:, None]).long() if avoid is None else beside(draw, counts, avoid)
        wordings = None
        if self.prompt.description:
            known = torch.tensor([len(texts) for texts in self.descriptions["train"]])
            known = known.clamp(min=1)[tasks][:, None]
            shape = (len(tasks), 1) if self.pack else shape
            wordings = (torch.rand(shape, generator=generator) * known).long()
            if self.prompt_dropout:
                dropped = torch.rand(len(tasks), 1, generator=generator) < self.prompt_dropout
                wordings = torch.where(dropped, -1, wordings)
            wordings = wordings[:, 0] if self.pack else wordings
        batch = self.train_batch(tasks, rows, split, wordings)
        if self.teacher is not None:
            told = None if wordings is None else wordings.clamp(min=0)
            asked = self.teacher.train_batch(tasks, rows, split, told)
            batch["teacher"] = asked["inputs"]
        return batch

    def sample_losses(self, output: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over answer tokens and their number, `[B, S]` each."""
        labels = batch["labels"]
        flat = F.cross_entropy(
            output.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=IGNORED,
            reduction="none",
        )
        if "samples" in batch:  # packed
            return packed_losses(flat.view_as(labels), batch)
        count = (labels != IGNORED).sum(1)
        return tuple(  # type: ignore[return-value]
            x.view(batch["blocks"], -1) for x in (flat.view_as(labels).sum(1), count)
        )

    @torch.no_grad()
    def evaluate(
        self, target: TargetLike, weights: Weights, tasks: Tensor, split: str = "test"
    ) -> dict[str, Tensor]:
        """Loss and score; see `TextSuite.evaluate` and the class."""
        total = count = torch.zeros(len(tasks))
        for rows, valid in self.evaluation_rows(tasks, split):
            batch = self.batch(tasks, rows, split)
            losses, tokens = self.sample_losses(target(weights, batch["inputs"]), batch)
            total = total + (losses.cpu() * valid).sum(1)
            count = count + (tokens.cpu() * valid).sum(1)
        return {"loss": total / count, "accuracy": self.score(target, weights, tasks, split)}

    # -- scores --------------------------------------------------------------------------------

    @property
    def reads_description(self) -> bool:
        """Whether the prompt holds a description."""
        return self.prompt.description

    def score(
        self,
        target: TargetLike,
        weights: Weights,
        tasks: Tensor,
        split: str = "test",
        wordings: Tensor | None = None,
    ) -> Tensor:
        """Accuracy alone, `[B]`: no forward pass for the loss; see `TaskSuite.score`."""
        accuracy = torch.zeros(len(tasks))
        ranked = torch.tensor([self._is_ranked(self.tasks[t]) for t in tasks.tolist()])
        for chosen, metric in ((ranked, "rank"), (~ranked, "exact")):
            if bool(chosen.any()):
                at = chosen.nonzero()[:, 0]
                words = None if wordings is None else wordings[at]
                own = weights if isinstance(target, BaseCall) else weights[at]
                found = measure(self, target, own, tasks[at], split, words, (metric,))
                accuracy[at] = found[metric]
        return accuracy

    def metrics(
        self,
        target: TargetLike,
        weights: Weights,
        tasks: Tensor,
        split: str = "test",
        wordings: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """`score`, and all of `hypergen.zoo.language.scoring.METRICS`; see `TaskSuite.metrics`."""
        ranked = torch.tensor([self._is_ranked(self.tasks[t]) for t in tasks.tolist()])
        for task in tasks[ranked].tolist():
            if not is_closed(self, task, split):
                name = self.names[task]
                raise UsageError(f"task {name!r} has open outputs: score it by exact match")
        found = measure(self, target, weights, tasks, split, wordings)
        return {"score": torch.where(ranked, found["rank"], found["exact"]), **found}

    def prompt_variants(self, shots: int = 3) -> dict[str, TaskSuite]:
        """`plain` without the description and `incontext` with demonstrations behind it.

        None if the prompt holds no description; see `hypergen.zoo.language.variants`.
        """
        if not self.prompt.description:
            return {}
        variants: dict[str, TaskSuite] = {"plain": self._variants()[0].of(self)}
        if shots > 0:
            variants["incontext"] = self.in_context(shots)
        return variants

    def in_context(self, shots: int, tokens: int | None = None) -> CausalSuite:
        """The suite with up to `shots` demonstrations, `tokens` tokens of them, in its prompt."""
        return self._variants()[1].with_shots(self, shots, tokens)

    def _variants(self) -> tuple[type[WithoutDescription], type[InContext]]:
        """The classes of the prompt's variants for this kind of model."""
        from hypergen.zoo.language.variants import InContext, WithoutDescription

        return WithoutDescription, InContext

    def stack_sizes(self, tasks: Tensor, samples: int, most: int) -> tuple[Tensor, list[int]]:
        """Tasks of similar length together, with no more tokens than fit in memory."""
        return stacks(self.mean_lengths(samples)[tasks], tasks, most)

    def with_tasks(self, folder: str | Path) -> CausalSuite:
        """See `TextSuite.with_tasks`; room is made for descriptions longer than those known.

        Tasks whose descriptions the model cannot take are left out and named in `skipped`.
        """
        suite = super().with_tasks(folder)
        assert isinstance(suite, CausalSuite)
        given = suite.task_splits["given"]
        suite.task_splits["given"] = make_room(suite, given)
        suite.skipped += tuple(
            UsageError(f"task {suite.names[task]!r}: the model cannot take its descriptions")
            for task in given
            if task not in suite.task_splits["given"]
        )
        return suite

    def _is_ranked(self, task: TextTask) -> bool:
        return self.scoring == "rank" or (self.scoring == "auto" and bool(task.labels))


def beside(draw: Tensor, counts: Tensor, avoid: Tensor) -> Tensor:
    """Uniform rows that are none of some others.

    Args:
        draw: `[B, S]` uniform numbers in [0, 1).
        counts: `[B]`, how many rows there are.
        avoid: `[B, K]`, different rows not to take; -1 is none. One at least must be left.

    Returns:
        `[B, S]` rows.
    """
    real = avoid >= 0
    # The r-th row that is left stands behind those that are not: r + #{j: a_j - j <= r}.
    sorted_ = avoid.masked_fill(~real, torch.iinfo(torch.long).max // 2).sort(1).values
    before = sorted_ - torch.arange(avoid.shape[1])
    rank = (draw * (counts - real.sum(1))[:, None]).long()
    return rank + (before[:, None] <= rank[..., None]).sum(2)
