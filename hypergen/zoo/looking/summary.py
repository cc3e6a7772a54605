"""Columns of the manifest in a few numbers."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
from torch import Tensor

from hypergen.zoo.reading import metric_names
from hypergen.zoo.store import Row, Zoo

QUANTILES = {"min": 0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1}
_SHOWN = 12  # values of a hyperparameter that is not a number


def distribution(values: np.ndarray | Tensor) -> dict[str, float]:
    """Count, mean, standard deviation (of the values themselves) and quantiles; NaN is left out.

    Returns:
        An empty dictionary if no value is left.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return {}
    quantiles = np.quantile(known, list(QUANTILES.values()))
    out = {"count": len(known), "mean": float(known.mean()), "sd": float(known.std())}
    return out | dict(zip(QUANTILES, map(float, quantiles), strict=True))


def metrics(zoo: Zoo) -> dict[str, dict[str, float]]:
    """`"split.name"` → distribution over the checkpoints of a view."""
    found = {}
    for metric in metric_names(zoo):
        split, _, name = metric.partition(".")
        found[metric] = distribution(zoo.metric(split, name))
    return {name: values for name, values in found.items() if values}


def hyperparameters(rows: tuple[Row, ...]) -> dict[str, dict[str, Any]]:
    """Name → range of numbers, or the most frequent values of anything else."""
    names = sorted({name for row in rows for name in row.hyperparameters})
    out: dict[str, dict[str, Any]] = {}
    for name in names:
        values = [row.hyperparameters[name] for row in rows if name in row.hyperparameters]
        texts = Counter(json.dumps(value, sort_keys=True) for value in values)
        found: dict[str, Any] = {"distinct": len(texts), "missing": len(rows) - len(values)}
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            found |= {"min": min(values), "max": max(values)}
        else:
            # Equal counts in order of the text, so that the order of the rows does not matter.
            common = sorted(texts.items(), key=lambda item: (-item[1], item[0]))
            found["values"] = dict(common[:_SHOWN])
        out[name] = found
    return out


def duplicates(rows: tuple[Row, ...]) -> dict[str, Any]:
    """How many checkpoints hold exactly the numbers of an earlier one, with some examples."""
    first: dict[tuple[str, str], Row] = {}
    count = across = 0
    examples: list[str] = []
    for row in rows:
        earlier = first.setdefault((row.architecture, row.sha256), row)
        if earlier is not row:
            count += 1
            across += earlier.run != row.run
            if len(examples) < 3:
                examples.append(f"{row.label} equals {earlier.label}")
    return {"count": count, "of_other_runs": across, "examples": examples}


def steps(zoo: Zoo) -> dict[str, int]:
    """Range and number of different steps, and most checkpoints of a run."""
    if not len(zoo):
        return {}
    found = {row.step for row in zoo.rows}
    most = max(Counter(row.run for row in zoo.rows).values())
    return {"min": min(found), "max": max(found), "distinct": len(found), "most_per_run": most}
