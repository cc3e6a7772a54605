"""Test-time refinement: from zero-shot to few-shot to fine-tuned, on a few demonstrations.

`refine` tunes the generated weights themselves; `search` tunes the condition that they are
generated from, the generator frozen. Both work on all tasks of a batch in one forward and backward
pass, and no task depends on its neighbours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from hypergen.specs import Weights
from hypergen.zoo.demos import Demos, TargetLike
from hypergen.zoo.tuner import OnStep, Options, Trace, Tuner


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
    options = Options(steps, lr, samples, heldout, select, pull, clip, seed, 1, 0.0)
    tuner = Tuner(weights.detach().flat(), weights.spec.from_flat, target, demos, options)
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
    options = Options(steps, lr, samples, heldout, select, pull, clip, seed, candidates, spread)
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
        tuner = Tuner(flat, lambda f: generator(rebuilt(f)), target, demos, options, real=real)
        flat, trace = tuner.run("searching the conditions", on_step)
        found = condition if steps == 0 and candidates == 1 else rebuilt(flat)
        with torch.no_grad():
            made = generator(found).detach()
    return Searched(_described(made, made, trace, "searched", options), found, trace)


def _described(out: Weights, given: Weights, trace: Trace, what: str, options: Options) -> Weights:
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
