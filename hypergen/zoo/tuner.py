"""Adam on many rows at once, none of which depends on the others; see `hypergen.zoo.tuning`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError, WeightsError
from hypergen._utils.progress import progress
from hypergen._utils.seeding import generator as seeded
from hypergen.specs import Weights
from hypergen.zoo.demos import Demos, TargetLike

OnStep = Callable[[int, Weights], None]


@dataclass(frozen=True, eq=False)
class Trace:
    """How tuning went, for `B` tasks.

    Attributes:
        losses: `[steps + 1, B]`, mean loss on the demonstrations that are tuned on, before the
            first step and after each, of the candidate that was chosen; with `samples`, those
            between the first and the last are of the demonstrations drawn.
        heldout: The same on those held out; None without any.
        step: `[B]`, the step whose values were taken (0 is the start).
        candidate: `[B]`, the start that was taken (0 is the one given).
    """

    losses: Tensor
    heldout: Tensor | None
    step: Tensor
    candidate: Tensor

    @property
    def before(self) -> Tensor:
        """`[B]`, loss of the start."""
        return self.losses[0]

    @property
    def after(self) -> Tensor:
        """`[B]`, loss of what was taken."""
        return self.losses.gather(0, self.step[None])[0]


@dataclass(frozen=True)
class Options:
    """How to tune, see `hypergen.zoo.tuning.search`."""

    steps: int
    lr: float
    samples: int | None
    heldout: int
    select: str
    pull: float
    clip: float | None
    seed: int
    candidates: int
    spread: float

    def check(self, demos: Demos, tasks: int) -> None:
        """Raises UsageError if something is out of range."""
        least = int(demos.counts.min())
        if len(demos) != tasks:
            raise UsageError(f"demonstrations of {len(demos)} tasks for {tasks} networks")
        if self.steps < 0 or self.candidates < 1:
            raise UsageError("steps must be 0 or more, and candidates at least 1")
        if not self.lr > 0 or self.pull < 0 or self.spread < 0:
            raise UsageError("lr must be positive, pull and spread not negative")
        if self.samples is not None and self.samples < 1:
            raise UsageError(f"samples is {self.samples}: it must be at least 1")
        if self.select not in ("last", "best"):
            raise UsageError(f"select is {self.select!r}: use 'last' or 'best'")
        if not 0 <= self.heldout < least:
            raise UsageError(
                f"heldout={self.heldout}: a task has {least} demonstrations, at least one of which "
                "must be tuned on"
            )


class Tuner:
    """Adam on one row for each candidate of each task."""

    def __init__(
        self,
        start: Tensor,
        make: Callable[[Tensor], Weights],
        target: TargetLike,
        demos: Demos,
        options: Options,
        real: Tensor | None = None,
    ) -> None:
        options.check(demos, len(start))
        self.make, self.target, self.demos, self.options = make, target, demos, options
        self.tasks = torch.arange(len(start)).repeat_interleave(options.candidates)
        self.start = start[self.tasks.to(start.device)].clone()
        self.real = None if real is None else real[self.tasks.to(start.device)]
        for place in range(1, options.candidates):
            # By the place alone: a task's random starts are the same in any batch.
            draw = seeded("candidate", options.seed, place)
            noise = torch.randn(start.shape[1], generator=draw).to(start)
            noise = noise if real is None else noise * real
            size = start.square().mean(1, keepdim=True).sqrt()
            self.start[place :: options.candidates] += options.spread * size * noise
        tuned = demos.counts - options.heldout
        self.tuned = self._all(torch.zeros_like(tuned), tuned)
        self.kept = self._all(tuned, demos.counts) if options.heldout else None

    def _all(self, first: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `[M, S]` from first to stop of each task, and which of them count."""
        width = int((stop - first).max())
        rows = first[self.tasks][:, None] + torch.arange(width)
        inside = rows < stop[self.tasks][:, None]
        return torch.where(inside, rows, first[self.tasks][:, None]), inside

    def _losses(self, weights: Weights, rows: tuple[Tensor, Tensor]) -> Tensor:
        total, count = self.demos.losses(self.target, weights, self.tasks, rows[0])
        inside = rows[1].to(total.device)
        return (total * inside).sum(1) / (count * inside).sum(1)

    def _drawn(self, step: int) -> tuple[Tensor, Tensor]:
        rows, inside = self.tuned
        wanted = self.options.samples
        if wanted is None or wanted >= rows.shape[1]:
            return rows, inside
        # The order of one task: with ragged counts, each takes its first ones of it.
        order = torch.rand(rows.shape[1], generator=seeded("refine", self.options.seed, step))
        order = order.expand_as(inside).masked_fill(~inside, 2.0).argsort(1)[:, :wanted]
        return rows.gather(1, order), inside.gather(1, order)

    def run(self, desc: str, on_step: OnStep | None) -> tuple[Tensor, Trace]:
        """Tunes, and returns the values taken `[B, P]`."""
        options = self.options
        leaf = self.start.clone().requires_grad_()
        optimizer = torch.optim.Adam([leaf], lr=options.lr)
        best = self.start.clone()
        losses, heldout = [], []
        lowest = torch.full((len(leaf),), torch.inf, device=leaf.device)
        at = torch.zeros(len(leaf), dtype=torch.long, device=leaf.device)
        with progress(total=options.steps, desc=desc, unit="step") as bar:
            for step in range(options.steps + 1):
                rows = self.tuned if step in (0, options.steps) else self._drawn(step)
                with torch.set_grad_enabled(step < options.steps):
                    weights = self.make(leaf)
                    loss = self._losses(weights, rows)
                seen = loss.detach()
                self._check(seen, step)
                losses.append(seen)
                with torch.no_grad():
                    if self.kept is not None:
                        heldout.append(self._losses(weights, self.kept))
                    if on_step is not None:
                        on_step(step, weights.detach().clone())  # the leaf changes in place
                value = (heldout or losses)[-1].to(leaf.device)
                better = value < lowest
                if options.select == "last":
                    better = torch.ones_like(better)
                lowest, at = torch.where(better, value, lowest), torch.where(better, step, at)
                best = torch.where(better[:, None], leaf.detach(), best)
                if step == options.steps:
                    break
                if options.pull:
                    loss = loss + options.pull * (leaf - self.start).square().mean(1)
                leaf.grad = self._gradient(loss, leaf)
                optimizer.step()
                bar.update()
        chosen = lowest.view(-1, options.candidates).argmin(1)
        rows_of = torch.arange(len(chosen), device=chosen.device) * options.candidates + chosen
        pick = rows_of.to(losses[0].device)
        trace = Trace(
            torch.stack(losses)[:, pick],
            torch.stack(heldout)[:, pick] if heldout else None,
            at[rows_of],
            chosen,
        )
        return best[rows_of], trace

    def _gradient(self, loss: Tensor, leaf: Tensor) -> Tensor:
        if not loss.requires_grad:
            raise UsageError(
                "what is generated has no gradient with respect to the condition: tune the "
                "weights themselves (refine)"
            )
        (gradient,) = torch.autograd.grad(loss.sum(), leaf, allow_unused=True)
        if gradient is None:
            raise UsageError("the loss does not depend on what is tuned")
        if self.real is not None:
            gradient = gradient * self.real
        if self.options.clip is not None:
            norm = gradient.norm(dim=1, keepdim=True).clamp(min=1e-12)
            gradient = gradient * (self.options.clip / norm).clamp(max=1.0)
        return gradient

    def _check(self, loss: Tensor, step: int) -> None:
        bad = (~torch.isfinite(loss)).nonzero()
        if len(bad):
            task = int(self.tasks[int(bad[0])])
            raise WeightsError(
                f"tuning diverged on task {task} at step {step}: lower lr={self.options.lr:g}"
            )
