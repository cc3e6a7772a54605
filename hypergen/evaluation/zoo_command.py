"""`hypergen evaluate` of runs that were trained on a zoo of networks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen.evaluation.audit.evaluate import audited
from hypergen.evaluation.printed import printed
from hypergen.evaluation.prompting import evaluate_prompting
from hypergen.evaluation.prompting_result import Prompting
from hypergen.evaluation.unseen import Unseen, evaluate_unseen
from hypergen.generators import Generator, load_generator
from hypergen.generators.diffusion import GPt
from hypergen.zoo.reading.record import ZooRecord


def zoo_command(args: argparse.Namespace, run: Path) -> dict[str, Any]:
    """Evaluates on the zoo that the run was trained on, as its conditions ask for.

    Generators of task vectors or descriptions make networks for the tasks of the test split
    (`evaluate_unseen`); generators of prompted changes change the first checkpoints of held-out
    runs (`evaluate_prompting`). Prints the table; writes numbers and a picture if asked for.

    Args:
        args: `split` (of the samples; prompts have their own), `report` (folder or None), `json`,
            and, if they are there, `zoo` (where the zoo is now), `n` (networks of each task),
            `prompts` (wanted values), `recursive` (prompts that follow one another), `runs` (most
            held-out runs) and `seed`.
        run: The run folder.

    Returns:
        The object of `Unseen.to_dict` or `Prompting.to_dict`, with `quality` and `verdict` of the
        memorisation audit under `audit`; of generators without a condition, these alone.

    Raises:
        RunError: The run folder or its zoo is missing or damaged.
        UsageError: The run's test tasks are those that it was trained on, or an unconditional one
            has too small a zoo for an audit, or is asked for a report.
    """
    record = ZooRecord.load(run, getattr(args, "zoo", None))
    generator = load_generator(run)
    train, test = record.splits["train"], record.splits["test"]
    seed = getattr(args, "seed", 0)
    found: Unseen | Prompting
    if record.kind == "pairs":
        if not isinstance(generator, GPt):
            raise UsageError(
                f"{run} holds a {type(generator).__name__}: metric values are prompted of GPt"
            )
        runs = getattr(args, "runs", None)
        found = evaluate_prompting(
            generator,
            train,
            test,
            record.settings["metric"],
            log=record.settings["log"],
            prompts=getattr(args, "prompts", None) or 20,
            recursive=getattr(args, "recursive", None) or 3,
            runs=100 if runs is None else runs,
            seed=seed,
        )
    elif record.kind in ("vector", "text"):
        if record.kind == "vector":
            conditions = record.settings["conditions"]
        else:
            conditions = {
                name: t.descriptions[0] for name, t in train.tasks.items() if t.descriptions
            }
        found = evaluate_unseen(
            generator,
            train,
            test,
            conditions,
            input_name=record.kind,
            samples=getattr(args, "n", None) or 3,
            split=args.split,
            seed=seed,
        )
    else:  # without a condition there is no task to be right about
        if args.report is not None:
            raise UsageError(f"{run} generates without a condition: hypergen audit has a --report")
        return audited(generator, record, seed=seed, quiet=args.json is not None)
    return printed(args, found) | {"audit": _audit(args, generator, record, seed)}


def _audit(
    args: argparse.Namespace, generator: Generator, record: ZooRecord, seed: int
) -> dict[str, Any] | None:
    """Whether the networks are new, where the zoo is large enough to tell."""
    quiet = args.json is not None
    try:
        if not quiet:
            print()
        return audited(generator, record, seed=seed, quiet=quiet)
    except UsageError as error:
        if not quiet:
            print(f"not audited: {error}")
        return None
