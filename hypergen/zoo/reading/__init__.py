"""Reading zoos for training: moments, normalisation, splits, filters, data sets."""

from hypergen.zoo.reading.augment import RandomPermutation
from hypergen.zoo.reading.dataset import ZooDataset
from hypergen.zoo.reading.filters import (
    filter_metric,
    metric_names,
    metric_values,
    sampling_weights,
    top_fraction,
)
from hypergen.zoo.reading.moments import Moments, compute_moments, moments_by_architecture
from hypergen.zoo.reading.normalizer import Normalizer
from hypergen.zoo.reading.splits import groups_of, split

__all__ = [
    "Moments",
    "Normalizer",
    "RandomPermutation",
    "ZooDataset",
    "compute_moments",
    "filter_metric",
    "groups_of",
    "metric_names",
    "metric_values",
    "moments_by_architecture",
    "sampling_weights",
    "split",
    "top_fraction",
]
