"""Generated weights as the start of training, beside the default start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from hypergen._utils.errors import UsageError
from hypergen._utils.progress import progress
from hypergen.evaluation.architectures.inits_result import GroupInits, InitEvaluation
from hypergen.evaluation.architectures.methods import Named, generate_all
from hypergen.zoo.architectures import Architecture, ArchitectureSpace, LearningProblem
from hypergen.zoo.architectures.families import GROUPS
from hypergen.zoo.architectures.train import (
    NetworkTraining,
    measure,
    prepare_start,
    train_from,
)

RATES = {"sgd": (0.01, 0.03, 0.1, 0.3), "adamw": (3e-4, 1e-3, 3e-3)}
DEFAULT = "default"


def evaluate_inits(
    hypernetworks: Mapping[str, nn.Module],
    problem: LearningProblem,
    space: ArchitectureSpace,
    training: NetworkTraining,
    rates: Sequence[float] | None = None,
    split: str = "test",
    count: int = 8,
    tuned: int = 3,
    samples: int | None = None,
    noise: float = 0.0,
    orthogonal: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> InitEvaluation:
    """Trains unseen architectures from the default and from generated starts.

    Convnets, vision transformers, perceptrons and language models are compared each for
    themselves. Each start gets the learning rate that is best for it on validation inputs, over
    other architectures (of the split `val`), so that none is trained with another's. All starts
    see the same batches.

    Args:
        hypernetworks: Name → `GraphHypernetwork`, the one in question first.
        problem: What the networks learn.
        space: Where they are drawn from.
        training: How they are trained; its `lr` is not used.
        rates: Learning rates to choose from; those of `RATES` when None.
        split: Split of the architectures.
        count: Architectures of each kind.
        tuned: Architectures of each kind on which learning rates are chosen.
        samples: Inputs that each network is scored on; all when None.
        noise: See `prepare_start`, of generated starts.
        orthogonal: See `prepare_start`, of generated starts.
        seed: Seed of default starts, noise and batches.
        device: Where networks run.

    Raises:
        UsageError: No kind of network is in the space, or a name is taken.
    """
    if DEFAULT in hypernetworks or not hypernetworks:
        raise UsageError(f"{DEFAULT!r} is the name of torch's own start: name runs otherwise")
    rates = list(rates or RATES[training.optimizer])
    groups = {
        name: space.only(families)
        for name, families in GROUPS.items()
        if any(space.families.get(f, 0) > 0 for f in families)
    }
    chosen = {
        name: (
            own.distinct(problem.signature, "val", tuned),
            own.distinct(problem.signature, split, count),
        )
        for name, own in groups.items()
        if split in own.splits(problem.signature)
    }
    if not chosen:
        raise UsageError(f"the space has no architectures of the split {split!r}")

    def starts(architectures: Sequence[Architecture]) -> dict[str, list[Named]]:
        found = {DEFAULT: [a.start(seed) for a in architectures]}
        for name, hypernetwork in hypernetworks.items():
            hypernetwork.to(device).eval()
            found[name] = [
                prepare_start(one.parameters, noise, orthogonal, seed)
                for one in generate_all(hypernetwork, architectures)
            ]
        return found

    names = [*hypernetworks, DEFAULT]
    results = {}
    total = len(names) * sum(len(rates) * len(a) + len(b) for a, b in chosen.values())
    with progress(total=total, desc="training networks", unit="network") as bar:
        for group, (tuning, testing) in chosen.items():

            def accuracy(
                architecture: Architecture, start: Named, lr: float, part: str
            ) -> tuple[float, float]:
                own = replace(training, lr=lr)
                trained, losses = train_from(architecture, start, problem, own, seed, device)
                bar.update()
                if bool(losses.isnan().any()):
                    return 0.0, float("nan")
                found = measure(architecture, trained, problem, part, samples, device=device)
                return found.accuracy, found.loss

            made = starts(tuning)
            best: dict[str, float] = {}
            for name in names:
                means = [
                    sum(
                        accuracy(a, s, lr, "val")[0]
                        for a, s in zip(tuning, made[name], strict=True)
                    )
                    for lr in rates
                ]
                best[name] = rates[means.index(max(means))]
            made = starts(testing)
            scores, losses, before = {}, {}, {}
            for name in names:
                pairs = list(zip(testing, made[name], strict=True))
                ends = [accuracy(a, s, best[name], "test") for a, s in pairs]
                scores[name] = torch.tensor([end[0] for end in ends])
                losses[name] = torch.tensor([end[1] for end in ends])
                untrained = [
                    measure(a, s, problem, "test", samples, device=device).accuracy
                    for a, s in pairs
                ]
                before[name] = torch.tensor(untrained)
            results[group] = GroupInits(group, tuple(testing), scores, losses, before, best)
    epochs = training.steps * training.batch_size / problem.size("train")
    settings = {"noise": noise, "orthogonal": orthogonal, "rates": rates, "seed": seed}
    return InitEvaluation(results, split, replace(training, lr=rates[0]), epochs, settings)
