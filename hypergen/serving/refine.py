"""`hypergen generate --refine`: the options, and what is said of the result."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypergen._utils.errors import RunError, UsageError
from hypergen._utils.io import read_json
from hypergen.generators import Generator, find_run
from hypergen.serving.inputs import read_demos
from hypergen.specs import Weights

SUITE_FILE = "suite.json"  # as hypergen.zoo.tasks writes it; serving knows no zoo
_KEYS = ("refined", "searched")


def refined(
    args: argparse.Namespace, generator: Generator, inputs: dict[str, Any], weights: Weights
) -> Weights:
    """The weights tuned on the demonstrations of `args.refine`, by `args.refiner`.

    Raises:
        UsageError: Options that do not go together, or the base is not named anywhere.
        RunError: The run's `suite.json` is damaged.
    """
    demos = read_demos(args.refine)
    if args.search and "document" in inputs:
        raise UsageError("--search tunes a condition of --text or --demos, not of --document")
    recorded = generator.spec.config["base"]
    name = args.base or recorded["name"]
    if name is None:
        raise UsageError(
            f"--refine: the generator records no name of its base ({recorded['class']}): say where "
            "it is by --base"
        )
    out: Weights = args.refiner(
        generator,
        inputs,
        weights,
        demos,
        base=name,
        recorded=args.base is None,
        suite=_suite(args.run),
        steps=args.steps,
        lr=args.lr,
        heldout=args.heldout,
        searched=args.search,
        seed=args.seed,
    )
    return out


def _suite(run: str) -> dict[str, Any] | None:
    """What the run says of its prompt, if it is a run folder."""
    try:
        path = find_run(run) / SUITE_FILE
    except RunError:  # a repository of the hub
        return None
    if not path.is_file() and Path(run).name == "generator":
        path = Path(run).parent / SUITE_FILE
    if not path.is_file():
        return None
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("init_args", {}), dict):
        raise RunError(f"{path} is damaged: 'init_args' is not an object")
    return data


def losses_apart(networks: Sequence[Weights]) -> None:
    """Leaves each network's provenance with its own losses."""
    for key in _KEYS:
        for i, one in enumerate(networks):
            how = one.provenance.get(key)
            if how is not None and len(how["loss_before"]) == len(networks):
                own = {k: [how[k][i]] for k in ("loss_before", "loss_after")}
                one.provenance = {**one.provenance, key: {**how, **own}}


def tuning_of(networks: Sequence[Weights]) -> dict[str, Any]:
    """How the networks were tuned: nothing, or a list under `refined` or `searched`."""
    return {
        key: [one.provenance[key] for one in networks]
        for key in _KEYS
        if all(key in one.provenance for one in networks)
    }


def tuning_in_words(weights: Weights) -> str:
    """Words behind a folder's name: the losses before and after."""
    for key in _KEYS:
        if key in weights.provenance:
            how = weights.provenance[key]
            before, after = (sum(how[k]) / len(how[k]) for k in ("loss_before", "loss_after"))
            return f"  {key} in {how['steps']} steps: loss {before:.3f} -> {after:.3f}"
    return ""
