"""What is audited: a run that was trained on a zoo, or a file of weights beside one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hypergen._utils.errors import RunError, UsageError
from hypergen.evaluation.audit.auditing import BASELINES, CHECKPOINTS, audit
from hypergen.evaluation.audit.files import check_spec, read_weights
from hypergen.evaluation.audit.records import Networks
from hypergen.evaluation.audit.result import Audit
from hypergen.evaluation.audit.sampling import Drawn, draw
from hypergen.evaluation.audit.zoos import find_problem, judge_of, networks_of
from hypergen.evaluation.networks import BatchNormStatistics, task_numbers
from hypergen.generators import Generator
from hypergen.specs import LoRASpec
from hypergen.zoo import Zoo, split
from hypergen.zoo.canonical import canonicalize, canonicalize_lora, pick_reference, symmetry_of
from hypergen.zoo.reading.record import ZooRecord

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}
_ROWS = 256  # networks that an autoencoder sees at a time


@dataclass(frozen=True)
class Options:
    """Settings of `audit_samples`.

    Attributes:
        seed: Seed of all draws.
        checkpoints: Most training checkpoints that are compared.
        baselines: Networks of each baseline.
        limit: Most test samples that networks are scored on.
        batch_norm: Where generated networks take their batch-norm statistics from.
        resamples: Bootstrap resamples.
    """

    seed: int = 0
    checkpoints: int = CHECKPOINTS
    baselines: int = BASELINES
    limit: int | None = 2000
    batch_norm: BatchNormStatistics = "train"
    resamples: int = 1000


def audit_run(
    generator: Generator,
    record: ZooRecord,
    samples: int = 256,
    *,
    condition: str = "heldout",
    options: Options | None = None,
    settings: dict[str, Any] | None = None,
) -> Audit:
    """Samples a generator and audits what it gives.

    Held-out networks are those of validation and test, of other runs or tasks than training. If
    there are more of them than training networks, as many are drawn.

    Args:
        generator: The generator.
        record: The zoo that it was trained on, and its splits.
        samples: Number of samples.
        condition: What conditional generators are asked for, see `draw`.
        options: Further settings.
        settings: What else to note.

    Raises:
        UsageError: Too few runs, or a condition that does not exist.
        WeightsError: The generator's spec is not that of the zoo; names a slot.
    """
    options = Options() if options is None else options
    train = record.splits["train"]
    check_spec(generator.spec, train.spec, "the generator", f"the zoo {train.folder}")
    drawn = draw(generator, record, samples, seed=options.seed, condition=condition)
    # Samples of improved networks start from validation runs: these are no reference for them.
    names = ("test",) if record.kind == "pairs" else ("val", "test")
    heldout = [record.splits[name] for name in names]
    return audit_samples(
        drawn,
        train,
        heldout,
        canonical=bool(record.settings.get("canonical")),
        reconstruct=_autoencoder(generator),
        options=options,
        settings={
            "generator": type(generator).__name__,
            "condition": condition if drawn.conditional else "none",
            **(settings or {}),
        },
    )


def audit_samples(
    drawn: Drawn,
    train: Zoo,
    heldout: list[Zoo],
    *,
    canonical: bool = False,
    reconstruct: Callable[[Tensor], Tensor] | None = None,
    options: Options | None = None,
    settings: dict[str, Any] | None = None,
) -> Audit:
    """Audits samples beside a zoo.

    Args:
        drawn: The samples.
        train: Training checkpoints of one architecture.
        heldout: Views of held-out ones.
        canonical: Whether the generator saw checkpoints whose units were matched: plain distances
            are taken to these then.
        reconstruct: The generator's autoencoder.
        options: Further settings.
        settings: What else to note.
    """
    options = Options() if options is None else options
    problem = find_problem(train)
    training = networks_of(train, problem)
    parts, first = [], training.runs
    for view in heldout:
        parts.append(networks_of(view, problem, first))
        first += parts[-1].runs
    held = Networks(
        torch.cat([part.flat for part in parts]),
        torch.cat([part.groups for part in parts]),
        torch.cat([part.tasks for part in parts]),
    )
    if canonical:
        training, held = _canonical(train, training, held)
    numbers = None
    if problem is not None and drawn.conditional:
        numbers = task_numbers(train, problem, drawn.tasks)
    judge = None
    # Networks of images without a condition are for no image: there is nothing to score them on.
    scored = problem is not None and (
        drawn.conditional or len(problem.tasks) == 1 or hasattr(problem, "answers")
    )
    if problem is not None and scored:
        judge = judge_of(train, problem, limit=options.limit, batch_norm=options.batch_norm)
    return audit(
        train.spec,
        drawn.networks(numbers),
        training,
        held,
        judge_by=judge,
        config=train.architecture.config,
        similarity=drawn.similarity,
        reconstruct=reconstruct,
        controls=drawn.controls,
        tasks_matter=drawn.conditional,
        checkpoints=options.checkpoints,
        baselines=options.baselines,
        resamples=options.resamples,
        seed=options.seed,
        settings={"zoo": str(train.folder), **(settings or {})},
    )


def _autoencoder(generator: Generator) -> Callable[[Tensor], Tensor] | None:
    """Encoding and decoding by the generator's codec, if it has one that loses something."""
    codec = getattr(generator, "codec", None)
    if codec is None or not hasattr(codec, "encode") or not hasattr(codec, "decode"):
        return None

    @torch.no_grad()
    def reconstruct(flat: Tensor) -> Tensor:
        parts = [
            codec.decode(codec.encode(p.to(generator.device))).cpu() for p in flat.split(_ROWS)
        ]
        return torch.cat(parts).float()

    return reconstruct


def _canonical(zoo: Zoo, training: Networks, held: Networks) -> tuple[Networks, Networks]:
    """The networks as a generator saw that was trained on canonical ones."""
    spec = zoo.spec
    if isinstance(spec, LoRASpec):
        forms = [canonicalize_lora(spec.from_flat(n.flat)).flat() for n in (training, held)]
    else:
        symmetry = symmetry_of(spec, zoo.architecture.config)
        reference = training.flat[pick_reference(training.flat, symmetry)]
        forms = [canonicalize(n.flat, symmetry, reference) for n in (training, held)]
    return (
        Networks(forms[0], training.groups, training.tasks),
        Networks(forms[1], held.groups, held.tasks),
    )


def open_zoo(
    folder: str | Path,
    *,
    architecture: str | None = None,
    step: int | Literal["last", "all"] = "last",
) -> Zoo:
    """Opens a zoo, and chooses checkpoints of one architecture.

    Raises:
        RunError: The zoo is missing or damaged.
        UsageError: Several architectures and none chosen, or no checkpoint is left.
    """
    zoo = Zoo(folder)
    if architecture is not None or len(zoo.architectures) > 1:
        zoo = zoo.select(architecture=architecture)
        _ = zoo.spec
    if step != "all":
        zoo = zoo.select(step=step)
    if not len(zoo):
        raise UsageError(f"{folder} has no checkpoint at step {step}")
    return zoo


def audit_file(
    path: str | Path,
    zoo: Zoo,
    heldout: Zoo | None = None,
    *,
    by: Literal["run", "task", "family"] = "run",
    options: Options | None = None,
) -> Audit:
    """Audits networks from a file, whoever made them.

    Args:
        path: A safetensors file, see `read_weights`.
        zoo: What they were made from. Without `heldout` it is cut as `ZooDataModule` cuts it with
            the same seed: the generator must have been trained on its training split alone.
        heldout: Networks that nothing was trained on; `zoo` is the training set then.
        by: What the splits do not share.
        options: Further settings.
    """
    options = Options() if options is None else options
    given = read_weights(path, zoo.spec)
    if heldout is None:
        views = split(zoo, by, FRACTIONS, options.seed)
        zoo, held = views["train"], [views["val"], views["test"]]
    else:
        check_spec(heldout.spec, zoo.spec, "the held-out zoo", "the zoo")
        held = [heldout]
    if given.tasks and find_problem(zoo) is None:
        raise RunError(f"{path} names tasks, and the zoo records no problem to score them on")
    flat = given.weights.flat().float()
    # Samples of one task are no independent ones.
    number = {task: i for i, task in enumerate(dict.fromkeys(given.tasks))}
    groups = [number[task] for task in given.tasks] or list(range(len(flat)))
    drawn = Drawn(flat, torch.tensor(groups), given.tasks)
    return audit_samples(drawn, zoo, held, options=options, settings={"weights": str(path)})
