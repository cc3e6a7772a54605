"""What weights say about the networks: ridge regression from embeddings to metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.progress import progress
from hypergen.evaluation.bootstrap import Bootstrap
from hypergen.evaluation.properties_result import LABELS, PropertyPrediction, PropertyScore
from hypergen.generators.diffusion import WeightCodec
from hypergen.specs import WeightSpec
from hypergen.zoo.reading import metric_names, metric_values
from hypergen.zoo.store import Zoo

Features = Callable[[Tensor], Tensor]

_ROWS = 256  # checkpoints that are read and described at a time
_PENALTIES = tuple(10.0**k for k in range(-4, 6))
_FEWEST = 3  # runs of a split below which nothing is said

# -- what describes a network ------------------------------------------------------------------


def pooled_embeddings(codec: WeightCodec) -> Features:
    """Latents of a codec, pooled: mean and spread of each latent over the tokens of every slot.

    Latents of a single token are taken as they are. Pooled over a slot, they do not depend on the
    order of its tokens, so that hidden units may be permuted.

    Args:
        codec: A fitted codec.

    Returns:
        Flat weights `[B, numel]` → `[B, F]`.
    """
    device = next((t.device for t in codec.state_dict().values()), torch.device("cpu"))
    slots = codec.positions[:, 1].to(device)
    _, owner, counts = slots.unique(return_inverse=True, return_counts=True)
    member = torch.nn.functional.one_hot(owner).T / counts[:, None]  # [slots, T], a mean
    many = counts > 1

    @torch.no_grad()
    def describe(flat: Tensor) -> Tensor:
        latents = codec.encode(flat.to(device, torch.get_default_dtype()))
        if latents.shape[1] == 1:
            return latents[:, 0].cpu()
        mean = torch.einsum("st,btd->bsd", member.to(latents), latents)
        rest = (latents - mean[:, owner]).square()
        spread = torch.einsum("st,btd->bsd", member.to(latents), rest).sqrt()
        return torch.cat([mean.flatten(1), spread[:, many].flatten(1)], dim=1).cpu()

    return describe


def layer_statistics(spec: WeightSpec) -> Features:
    """Mean, spread, smallest and largest value and quartiles of every slot.

    The baseline of Unterthiner et al., "Predicting Neural Network Accuracy from Weights", 2020,
    arXiv:2002.11448, which is hard to beat.

    Args:
        spec: The weights.

    Returns:
        Flat weights `[B, numel]` → `[B, 7 · slots]`.
    """

    @torch.no_grad()
    def describe(flat: Tensor) -> Tensor:
        parts = []
        for group in spec.split(flat.float()):
            values = group.flatten(2).sort(-1).values
            # The quantiles of `torch.quantile`, which refuses large tensors.
            place = torch.linspace(0, values.shape[-1] - 1, 5, dtype=torch.float64)
            low, high = place.floor().long(), place.ceil().long()
            quantiles = torch.lerp(values[..., low], values[..., high], (place - low).float())
            moments = [values.mean(-1, keepdim=True), values.std(-1, correction=0, keepdim=True)]
            parts.append(torch.cat([*moments, quantiles], -1).flatten(1))
        return torch.cat(parts, dim=1).cpu()

    return describe


def properties_of(zoo: Zoo) -> dict[str, np.ndarray]:
    """Properties of checkpoints that can be predicted: name → `[N]`, NaN where one has none.

    All metrics; `step`, the training progress; and `generalisation gap`, the accuracy on training
    samples minus that on test samples, where both are recorded. Those that hardly vary are left
    out.
    """
    found = {name: metric_values(zoo, name) for name in metric_names(zoo)}
    if {"train.accuracy", "test.accuracy"} <= found.keys():
        found["generalisation gap"] = found["train.accuracy"] - found["test.accuracy"]
    found["step"] = np.array([row.step for row in zoo.rows], dtype=np.float64)
    return {
        name: values
        for name, values in found.items()
        if np.isfinite(values).any() and np.nanstd(values) > 1e-12 * (1 + abs(np.nanmean(values)))
    }


# -- prediction --------------------------------------------------------------------------------


def predict_properties(
    splits: Mapping[str, Zoo],
    features: Mapping[str, Features],
    *,
    properties: Sequence[str] | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> PropertyPrediction:
    """Ridge regression from each kind of features to each property, scored on held-out runs.

    Eilertsen et al., "Classifying the Classifier", 2020, arXiv:2002.05688; Schürholt et al.,
    "Self-Supervised Representation Learning on Neural Network Weights for Model Characteristic
    Prediction", NeurIPS 2021, arXiv:2110.15288. Features are standardised on the training runs, and
    the penalty is chosen on the validation runs. Intervals resample whole test runs: checkpoints of
    a run are no independent samples.

    Args:
        splits: `train`, `val` and `test` views of a zoo of one architecture; no run is in two.
        features: Method → features, such as `pooled_embeddings` and `layer_statistics`.
        properties: Names of the properties, see `properties_of`; all when not given.
        transform: Applied to weights before everything else, such as bringing units into order.
        resamples: Resamples of the bootstrap.
        seed: Its seed.

    Raises:
        UsageError: A split lacks runs, two share a run, or a property is not known.
    """
    names = ("train", "val", "test")
    runs = {name: [row.run for row in splits[name].rows] for name in names}
    _check_runs(runs)
    known = {name: properties_of(splits[name]) for name in names}
    usable = [p for p in known["train"] if all(p in known[name] for name in names)]
    wanted = usable if properties is None else list(properties)
    for name in wanted:
        if name not in usable:
            raise UsageError(f"the zoo has no property {name!r}.{did_you_mean(name, usable)}")
    if not wanted:
        raise UsageError("the checkpoints of this zoo have no metric that varies")
    described = {
        method: {name: _describe(splits[name], fn, transform, method) for name in names}
        for method, fn in features.items()
    }
    scores = {}
    for name in wanted:
        targets = {split: torch.from_numpy(known[split][name]) for split in names}
        scores[name] = _score(described, targets, runs["test"], resamples, seed)
    counts = {name: len(splits[name]) for name in names}
    return PropertyPrediction(scores, counts, {name: len(set(runs[name])) for name in names})


def _check_runs(runs: Mapping[str, list[str]]) -> None:
    sets = {name: set(found) for name, found in runs.items()}
    for name, found in sets.items():
        if len(found) < _FEWEST:
            raise UsageError(
                f"the {name} split has {len(found)} runs; properties need at least {_FEWEST}"
            )
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sorted(sets[a] & sets[b])
        if shared:
            raise UsageError(f"run {shared[0]!r} is in {a} and in {b}: split the zoo by run")


def _describe(
    zoo: Zoo, fn: Features, transform: Callable[[Tensor], Tensor] | None, method: str
) -> Tensor:
    parts = []
    starts = range(0, len(zoo), _ROWS)
    for start in progress(starts, desc=f"features ({method})", unit="batch"):
        flat = zoo.flat(range(start, min(start + _ROWS, len(zoo)))).float()
        parts.append(fn(flat if transform is None else transform(flat)).double())
    return torch.cat(parts)


def _score(
    described: Mapping[str, Mapping[str, Tensor]],
    targets: Mapping[str, Tensor],
    runs: Sequence[str],
    resamples: int,
    seed: int,
) -> PropertyScore:
    finite = {name: torch.isfinite(values) for name, values in targets.items()}
    y = {name: values[finite[name]] for name, values in targets.items()}
    number = {run: i for i, run in enumerate(dict.fromkeys(runs))}
    unit = torch.tensor([number[run] for run in runs])[finite["test"]]
    bootstrap = Bootstrap(len(number), resamples, seed)
    r2, ci, draws, penalty = {}, {}, {}, {}
    for method, features in described.items():
        x = {name: features[name][finite[name]] for name in y}
        predicted, penalty[method] = ridge(x["train"], y["train"], x["val"], y["val"], x["test"])
        r2[method] = float(_r2(y["test"], predicted, unit, torch.arange(len(number))[None])[0])
        draws[method] = _r2(y["test"], predicted, unit, bootstrap.draws)
        ci[method] = bootstrap.interval(draws[method])
    difference = None
    if set(LABELS) <= set(r2):
        a, b = LABELS
        difference = r2[a] - r2[b], bootstrap.interval(draws[a] - draws[b])
    return PropertyScore(r2, ci, difference, penalty)


def _r2(truth: Tensor, predicted: Tensor, unit: Tensor, draws: Tensor) -> Tensor:
    """R² of the runs in each row of `draws` `[R, U]`: 1 - squared error / squared deviation."""
    columns = [torch.ones_like(truth), truth, truth.square(), (truth - predicted).square()]
    sums = truth.new_zeros(int(torch.maximum(draws.max(), unit.max())) + 1, 4)
    sums.index_add_(0, unit, torch.stack(columns, dim=1))
    count, total, squares, error = sums[draws].sum(1).unbind(1)
    return 1 - error / (squares - total.square() / count)


def ridge(
    x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor, x_test: Tensor
) -> tuple[Tensor, float]:
    """Ridge regression with the penalty that is best on validation samples.

    Hoerl and Kennard, 1970. All penalties share one singular value decomposition.

    Args:
        x: `[N, F]` training features in float64.
        y: `[N]` training targets.
        x_val: `[V, F]`.
        y_val: `[V]`.
        x_test: `[M, F]`.

    Returns:
        Predictions `[M]`, and the penalty per sample of standardised features.
    """
    mean, std = x.mean(0), x.std(0, correction=0)
    keep = std > 1e-9 * (1 + mean.abs())  # constants say nothing
    x, x_val, x_test = (((z - mean) / std)[:, keep] for z in (x, x_val, x_test))
    centre = y.mean()
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    target = u.T @ (y - centre)
    penalties = torch.tensor(_PENALTIES, dtype=x.dtype) * len(x)
    # [F, penalties]
    weights = vh.T @ (s[:, None] * target[:, None] / (s.square()[:, None] + penalties))
    errors = (centre + x_val @ weights - y_val[:, None]).square().mean(0)
    best = int(errors.argmin())
    return centre + x_test @ weights[:, best], float(penalties[best] / len(x))
