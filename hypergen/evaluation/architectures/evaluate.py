"""Accuracy straight from generation on unseen architectures, beside every baseline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from hypergen._utils.progress import progress
from hypergen.conditions.graph import trace
from hypergen.evaluation.architectures.methods import (
    averaged,
    borrowed,
    generate_all,
    swapped,
)
from hypergen.evaluation.architectures.properties import predict_property
from hypergen.evaluation.architectures.result import ArchitectureEvaluation, SplitScores
from hypergen.zoo.architectures import Architecture, ArchitectureSpace, LearningProblem
from hypergen.zoo.architectures.functional import skeleton
from hypergen.zoo.architectures.train import Measured, NetworkTraining, measure, train_from

_FEWEST = 20  # architectures that a property is predicted of


def evaluate_architectures(
    hypernetwork: nn.Module,
    problem: LearningProblem,
    space: ArchitectureSpace,
    splits: Sequence[str] | None = None,
    count: int = 32,
    samples: int | None = None,
    training: NetworkTraining | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ArchitectureEvaluation:
    """Scores generated weights and baselines on unseen architectures of every split.

    - `default`: as torch starts the network; chance.
    - `mean`: the mean of what was generated for parameters of the same role and shape in the other
      networks of the split.
    - `other`: what was generated for those of one other network, where there are such.
    - `swapped`: the network's own weights, permuted among parameters of one role and shape.
    - `generated`: the generated weights.
    - `trained`: trained from the default start, if `training` is given.

    Batch norm takes the statistics of the batch throughout.

    Args:
        hypernetwork: A `GraphHypernetwork`.
        problem: What the networks are for.
        space: Where they are drawn from.
        splits: Splits of `space`; all but train and val when None.
        count: Architectures of a split.
        samples: Test inputs that each is scored on; all when None.
        training: How the networks of `trained` are trained.
        seed: Seed of starts, permutations and training.
        device: Where networks run.

    Raises:
        UsageError: A split does not exist, or has fewer architectures.
    """
    signature = problem.signature
    if splits is None:
        splits = [s for s in space.splits(signature) if s not in ("train", "val")]
    chosen = {split: space.distinct(signature, split, count) for split in splits}
    hypernetwork = hypernetwork.to(device).eval()
    results = {}
    total = sum(map(len, chosen.values()))
    with progress(total=total, desc="architectures", unit="network") as bar:
        for split, architectures in chosen.items():
            everyone = generate_all(hypernetwork, architectures)
            rows: dict[str, list[Measured]] = {}
            shares = []
            for number, one in enumerate(everyone):
                start = one.architecture.start(seed)
                other, share = borrowed(everyone, number, start)
                shares.append(share)
                made = {
                    "default": start,
                    "mean": averaged(everyone, number, start),
                    "other": other,
                    "swapped": swapped(one, seed),
                    "generated": one.parameters,
                }
                if training is not None:
                    made["trained"], _ = train_from(
                        one.architecture, start, problem, training, seed, device
                    )
                for method, parameters in made.items():
                    found = measure(
                        one.architecture, parameters, problem, "test", samples, device=device
                    )
                    rows.setdefault(method, []).append(found)
                bar.update()
            results[split] = SplitScores.of(split, architectures, rows, shares)
    fit = None
    everything = [a for found in chosen.values() for a in found]
    if training is not None and len(everything) >= _FEWEST:
        trained = [float(v) for s in results.values() for v in s.accuracy["trained"]]
        fit = predict_property(embeddings(hypernetwork, everything), torch.tensor(trained), seed)
    return ArchitectureEvaluation(results, seed, training, fit)


@torch.no_grad()
def embeddings(hypernetwork: nn.Module, architectures: Sequence[Architecture]) -> torch.Tensor:
    """`[N, D]`, the vector that a hypernetwork has for each architecture."""
    graphs = [trace(skeleton(a)[0], a.signature.example()) for a in architectures]
    parts = [hypernetwork.embed(graphs[i : i + 8]) for i in range(0, len(graphs), 8)]  # type: ignore[operator]
    return torch.cat(parts).float().cpu()
