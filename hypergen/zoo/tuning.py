"""Test-time refinement: from zero-shot to few-shot to fine-tuned, on a few demonstrations.

`refine` tunes the generated weights themselves; `search` tunes the condition that they are
generated from, the generator frozen. Both work on all tasks of a batch in one forward and backward
pass, and no task depends on its neighbours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

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


class Refined(NamedTuple):
    """What `refine` returns."""

    weights: Weights
    trace: Trace


class Searched(NamedTuple):
    """What `search` returns."""

    weights: Weights
    condition: Any
    trace: Trace


def refine(
    weights: Weights,
    target: TargetLike,
    demos: Demos,
    *,
    steps: int = 20,
    lr: float = 1e-3,
    samples: int | None = None,
    heldout: int = 0,
    select: Literal["last", "best"] = "last",
    pull: float = 0.0,
    clip: float | None = 1.0,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Refined:
    """Tunes generated weights on demonstrations, as ordinary fine-tuning would from that start.

    Adam entry by entry on one leaf `[B, numel]`, each network's gradient clipped by itself.

    Args:
        weights: `B` networks.
        target: The frozen target.
        demos: Demonstrations of the `B` tasks.
        steps: Optimiser steps; 0 returns the weights as they are.
        lr: Learning rate, constant.
        samples: Demonstrations of each task in a step, drawn by the seed; all when not given.
        heldout: Demonstrations of each task that are held out, its last ones.
        select: Take the `"last"` step, or the `"best"`: that of the lowest loss on what is held
            out (on what is tuned on if nothing is).
        pull: Factor of the mean squared distance from the start that is added to the loss.
        clip: Greatest norm of a network's gradient; not clipped when None.
        seed: Seed of the samples.
        on_step: Called with the number of steps done and the weights there, from 0 on.

    Returns:
        The tuned weights, without an expected gain (it was that of the start), and the trace.

    Raises:
        UsageError: Options out of range, or demonstrations of another number of tasks.
        WeightsError: A loss is not finite; names the task's position.
    """
    options = _Options(steps, lr, samples, heldout, select, pull, clip, seed, 1, 0.0)
    tuner = _Tuner(weights.detach().flat(), weights.spec.from_flat, target, demos, options)
    flat, trace = tuner.run("refining the weights", on_step)
    out = weights.detach() if steps == 0 else weights.spec.from_flat(flat)
    return Refined(_described(out, weights, trace, "refined", options), trace)


def search(
    generator: Callable[[Any], Weights],
    condition: Any,
    target: TargetLike,
    demos: Demos,
    *,
    steps: int = 20,
    lr: float = 1e-2,
    samples: int | None = None,
    heldout: int = 0,
    select: Literal["last", "best"] = "last",
    pull: float = 0.0,
    clip: float | None = 1.0,
    candidates: int = 1,
    spread: float = 0.1,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Searched:
    """Searches the generator's conditions for the one whose weights solve the demonstrations.

    Macfarlane and Bonnet, "Searching Latent Program Spaces", arXiv:2411.08706: gradient steps in
    the latent space from what the encoder says, the decoder (here the generator) frozen. Tokens
    and pooled vector are tuned together.

    Args:
        generator: Differentiable with respect to its condition.
        condition: The `Condition` to start from, `B` rows.
        target: The frozen target.
        demos: Demonstrations of the `B` tasks.
        steps: Optimiser steps (Adam); 0 returns the condition as it is.
        lr: Learning rate, constant.
        samples: As in `refine`.
        heldout: As in `refine`.
        select: As in `refine`.
        pull: As in `refine`, of the condition.
        clip: As in `refine`, of a condition's gradient.
        candidates: Starts for each task: the condition, and random ones around it. The one of the
            lowest loss on what is held out (on what is tuned on if nothing is) is taken.
        spread: Standard deviation of the random starts, in root mean squares of the condition.
        seed: Seed of samples and random starts; a task's do not depend on the others.
        on_step: As in `refine`; with several candidates the weights are those of all of them,
            task by task.

    Returns:
        The weights, the condition that makes them, and the trace.

    Raises:
        UsageError: Options out of range, demonstrations of another number of tasks, or a generator
            whose weights do not depend on its condition by a gradient.
        WeightsError: A loss is not finite; names the task's position.
    """
    options = _Options(steps, lr, samples, heldout, select, pull, clip, seed, candidates, spread)
    condition = condition.detach()
    shape, split = condition.tokens.shape, condition.tokens[0].numel()
    flat = torch.cat([condition.tokens.flatten(1), condition.pooled], 1)
    # Padding is no token: it gets no noise, and no step.
    real = condition.mask[..., None].expand(shape).flatten(1)
    real = torch.cat([real, torch.ones_like(condition.pooled, dtype=torch.bool)], 1)

    def rebuilt(flat: Tensor) -> Any:
        rows = torch.arange(len(condition), device=flat.device)
        own = condition[rows.repeat_interleave(len(flat) // len(condition))]
        tokens = flat[:, :split].view(-1, *shape[1:])
        return dataclasses.replace(own, tokens=tokens, pooled=flat[:, split:])

    with _evaluating(generator):
        tuner = _Tuner(flat, lambda f: generator(rebuilt(f)), target, demos, options, real=real)
        flat, trace = tuner.run("searching the conditions", on_step)
        found = condition if steps == 0 and candidates == 1 else rebuilt(flat)
        with torch.no_grad():
            made = generator(found).detach()
    return Searched(_described(made, made, trace, "searched", options), found, trace)


@dataclass(frozen=True)
class _Options:
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


class _Tuner:
    """Adam on one row for each candidate of each task."""

    def __init__(
        self,
        start: Tensor,
        make: Callable[[Tensor], Weights],
        target: TargetLike,
        demos: Demos,
        options: _Options,
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


def _described(out: Weights, given: Weights, trace: Trace, what: str, options: _Options) -> Weights:
    """Says in the provenance what was done, unless nothing was."""
    out.provenance, out.expected_gain = dict(given.provenance), None
    if not options.steps:
        out.expected_gain = given.expected_gain
        return out
    out.provenance[what] = {
        "steps": options.steps,
        "lr": options.lr,
        "seed": options.seed,
        "loss_before": [round(v, 6) for v in trace.before.tolist()],
        "loss_after": [round(v, 6) for v in trace.after.tolist()],
    }
    return out


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Keeps a module in evaluation mode for a while."""
    training = isinstance(module, nn.Module) and module.training
    if training:
        module.eval()
    try:
        yield
    finally:
        if training:
            module.train()
