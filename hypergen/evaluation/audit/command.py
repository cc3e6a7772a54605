"""`hypergen audit`: are sampled weights new, or copies of what they were trained on?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen.evaluation.audit.result import Audit
from hypergen.evaluation.audit.sources import Options, audit_file, audit_run, open_zoo
from hypergen.generators import find_run, load_generator
from hypergen.zoo.reading.record import ZooRecord, has_record


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `hypergen audit`."""
    add = parser.add_argument
    add("run", metavar="RUN", nargs="?", help="run folder of a generator that was trained on a zoo")
    add("--weights", metavar="FILE", help="or: a safetensors file of networks, whoever made them")
    add("--zoo", metavar="DIR", help="zoo of --weights; or where the zoo of RUN is now")
    add("--heldout", metavar="DIR", help="with --weights: zoo of networks that are not in --zoo")
    add("--samples", metavar="N", type=_positive, default=256, help="networks to sample")
    add("--seed", metavar="S", type=int, default=0, help="seed of samples, splits and intervals")
    add(
        "--condition",
        metavar="C",
        default="heldout",
        help="heldout (default) or train, for the tasks of a split, or the name of a task",
    )
    add("--split-by", metavar="K", default="run", help="with --weights: run, task or family")
    add("--step", metavar="K", default="last", help="with --weights: last, all or a step")
    add("--architecture", metavar="KEY", help="with --weights: of a zoo that has several")
    add("--checkpoints", metavar="N", type=_positive, default=2048, help="most to compare with")
    add("--test-samples", metavar="N", type=_positive, default=2000, help="most to score on")
    add(
        "--batch-norm",
        metavar="S",
        default="train",
        help="statistics of generated networks: train (re-estimated on training data) or stored",
    )
    add("--report", metavar="DIR", help="folder for report.html, its plots and audit.json")


def audit_command(args: argparse.Namespace) -> dict[str, Any]:
    """Audits a run, or weights from a file; prints the tables, writes the report if asked for.

    Args:
        args: See `add_options`.

    Returns:
        The object of `Audit.to_dict`.

    Raises:
        RunError: The run, the file or the zoo is missing or damaged.
        UsageError: Options that exclude each other, or a zoo that is too small.
        WeightsError: Weights of another spec than the zoo's; names the slot.
    """
    if (args.run is None) == (args.weights is None):
        raise UsageError("give a run folder, or --weights FILE with --zoo DIR")
    if args.batch_norm not in ("train", "stored"):
        raise UsageError(f"--batch-norm is train or stored, not {args.batch_norm!r}")
    options = Options(
        seed=args.seed,
        checkpoints=args.checkpoints,
        limit=args.test_samples,
        batch_norm=args.batch_norm,
    )
    found = _run(args, options) if args.weights is None else _file(args, options)
    if args.json is None:
        print(found.to_table())
    if args.report is not None:
        from hypergen.evaluation.audit.report import write_report

        path = write_report(args.report, found)
        if args.json is None:
            print(f"report: {path}")
    return found.to_dict()


def _run(args: argparse.Namespace, options: Options) -> Audit:
    if args.heldout is not None:
        raise UsageError("--heldout belongs to --weights: a run knows its held-out networks")
    run = find_run(args.run)
    if not has_record(run):
        raise UsageError(
            f"{run} does not say which zoo it was trained on: an audit needs a generator that "
            "`hypergen fit` trained on a zoo; for other weights give --weights FILE --zoo DIR"
        )
    record = ZooRecord.load(run, args.zoo)
    return audit_run(
        load_generator(run),
        record,
        args.samples,
        condition=args.condition,
        options=options,
        settings={"run": str(run)},
    )


def _file(args: argparse.Namespace, options: Options) -> Audit:
    if args.zoo is None:
        raise UsageError("--weights needs --zoo DIR: what the networks were made from")
    if args.split_by not in ("run", "task", "family"):
        raise UsageError(f"--split-by is run, task or family, not {args.split_by!r}")
    if not args.step.isdigit() and args.step not in ("last", "all"):
        raise UsageError(f"--step is last, all or a number of steps, not {args.step!r}")
    step = int(args.step) if args.step.isdigit() else args.step
    zoo, heldout = (
        None
        if folder is None
        else open_zoo(Path(folder), architecture=args.architecture, step=step)
        for folder in (args.zoo, args.heldout)
    )
    assert zoo is not None
    return audit_file(args.weights, zoo, heldout, by=args.split_by, options=options)


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return value
