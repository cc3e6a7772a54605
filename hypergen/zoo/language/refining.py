"""What `hypergen generate --refine` does: generated adapters tuned on demonstrations in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import Kind, LanguageModel, load_language_model
from hypergen.specs import Weights
from hypergen.targets import make_target
from hypergen.zoo.language.demos import TextDemos
from hypergen.zoo.tuning import refine, search

_SUITES: dict[str, Kind] = {"CausalSuite": "causal", "Seq2SeqSuite": "seq2seq"}
_TASKS: dict[str, Kind] = {"CAUSAL_LM": "causal", "SEQ_2_SEQ_LM": "seq2seq"}


def refine_generated(
    generator: Any,
    inputs: Mapping[str, Any],
    weights: Weights,
    demos: Sequence[Mapping[str, Any]],
    *,
    base: str,
    suite: Mapping[str, Any] | None = None,
    steps: int = 20,
    lr: float | None = None,
    heldout: int = 0,
    searched: bool = False,
    seed: int = 0,
) -> Weights:
    """Tunes generated adapters on demonstrations, all of them in the same passes.

    Args:
        generator: What generated them.
        inputs: The raw inputs that it was given.
        weights: What it made of them, input by input.
        demos: Demonstrations, `{"input": …, "output": …}`, the same for all.
        base: Name or folder of the frozen language model.
        suite: What `suite.json` of the run holds: the prompt and how the model is loaded; a plain
            prompt without a description when not given.
        steps: Optimiser steps.
        lr: Learning rate; 1e-3 for weights, 1e-2 for conditions when not given.
        heldout: Demonstrations that choose the best step; none for the last step.
        searched: Tune the condition, not the weights.
        seed: Seed of the draws.

    Returns:
        The tuned weights, whose provenance says so.

    Raises:
        UsageError: The base writes no text, or a demonstration is malformed.
        WeightsError: The base is another one than the weights were made for.
    """
    options = dict((suite or {}).get("init_args", {}))
    model = _model(weights, suite, base, options)
    prompt = {**(options.get("prompt") or {}), "examples": 0}
    texts = inputs.get("text")
    if prompt.get("description") and texts is None:
        prompt["description"] = False  # the run's prompt holds one, but there is none
    texts = [texts] if isinstance(texts, str) else texts
    draws = len(weights) // len(texts) if texts else len(weights)
    shown = [text for text in texts for _ in range(draws)] if texts else None
    asked = TextDemos(
        model,
        [demos] * len(weights),
        shown,
        prompt=prompt,
        max_length=options.get("max_length", 512),
    )
    target = make_target(asked.network, weights.spec)
    select: Any = "best" if heldout else "last"
    if not searched:
        tuned = refine(
            weights,
            target,
            asked,
            steps=steps,
            lr=1e-3 if lr is None else lr,
            heldout=heldout,
            select=select,
            seed=seed,
        ).weights
        return tuned
    condition = generator.encode(**inputs)
    rows = torch.arange(len(condition)).repeat_interleave(len(weights) // len(condition))
    found = search(
        generator,
        condition[rows],
        target,
        asked,
        steps=steps,
        lr=1e-2 if lr is None else lr,
        heldout=heldout,
        select=select,
        seed=seed,
    ).weights
    found.provenance = {**weights.provenance, **found.provenance}
    return found


def _model(
    weights: Weights, suite: Mapping[str, Any] | None, base: str, options: Mapping[str, Any]
) -> LanguageModel:
    kind = _SUITES.get((suite or {}).get("class", ""))
    if kind is None and suite is None:
        kind = _TASKS.get(weights.spec.config.get("task_type") or "")
        if kind is None:
            peft = weights.spec.config.get("peft_config", {})
            kind = _TASKS.get(peft.get("task_type") or "")
    if kind is None:
        raise UsageError(
            "refining on a file of demonstrations needs a language model that writes text as the "
            "base; tune weights for another target with hypergen.refine and hypergen.BatchDemos"
        )
    return load_language_model(base, kind=kind, **(options.get("load") or {}))
