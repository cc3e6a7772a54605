"""What embeddings of architectures know: a property of trained networks, by ridge regression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen.evaluation.bootstrap import Bootstrap, Interval, Scores

_STRENGTHS = [10.0**k for k in range(-3, 5)]


@dataclass(frozen=True)
class PropertyFit:
    """How well a property is predicted for architectures that were left out of the fit.

    Attributes:
        r2: Share of the variance that is predicted; 0 for predicting the mean.
        interval: 95% interval over architectures.
        count: How many there were.
    """

    r2: float
    interval: Interval
    count: int


def predict_property(
    embeddings: Tensor, values: Tensor, seed: int = 0, folds: int = 5
) -> PropertyFit:
    """Predicts a property from embeddings, by ridge regression, with cross-validation.

    Each fold is predicted by a fit on the others, whose strength is chosen on these alone.

    Args:
        embeddings: `[N, D]`, one of each architecture.
        values: `[N]`, such as the accuracy after training.
        seed: Seed of the folds.
        folds: Number of folds.

    Raises:
        UsageError: There are fewer than two architectures a fold.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = len(values)
    if count < 2 * folds or len(embeddings) != count:
        raise UsageError(
            f"{folds} folds need at least {2 * folds} architectures with a value each, not {count}"
        )
    model = make_pipeline(StandardScaler(), RidgeCV(_STRENGTHS))
    split = KFold(folds, shuffle=True, random_state=seed)
    found = cross_val_predict(model, embeddings.double().numpy(), values.double().numpy(), cv=split)
    errors = (torch.from_numpy(found) - values.double()) ** 2
    spread = (values.double() - values.double().mean()) ** 2
    bootstrap = Bootstrap(count, seed=seed)
    draws = 1 - bootstrap.means(Scores.of(errors)) / bootstrap.means(Scores.of(spread))
    return PropertyFit(float(1 - errors.mean() / spread.mean()), bootstrap.interval(draws), count)
