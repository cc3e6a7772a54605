"""Zoos for tests of reading: any runs, tasks and weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from hypergen.specs import FullSpec, WeightSpec
from hypergen.zoo.store import Architecture, Block, Header, Row, Task, Zoo, ZooWriter

MLP_SPEC = FullSpec(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))


def write_rows(
    folder: Path,
    rows: list[Row],
    weights: Tensor | None = None,
    *,
    spec: WeightSpec = MLP_SPEC,
    families: dict[str, str] | None = None,
    parts: int = 2,
) -> Zoo:
    """A zoo of one architecture "net"; its rows lie in several shards."""
    if weights is None:
        weights = torch.randn(len(rows), spec.numel, generator=torch.Generator().manual_seed(0))
    names = sorted({row.task for row in rows if row.task})
    tasks = {name: Task((f"Do {name}.",), (families or {}).get(name, "")) for name in names}
    with ZooWriter(folder, Header("test", "CC0-1.0", tasks, {"net": Architecture(spec)})) as writer:
        size = -(-len(rows) // parts)
        for first in range(0, len(rows), size):
            some = slice(first, first + size)
            writer.append([Block("net", weights[some], rows[some])])
    return Zoo(folder)


def plain_rows(runs: int = 6, steps: int = 3, tasks: int = 3) -> list[Row]:
    """Rows of runs that take tasks in turn, with accuracies that differ."""
    return [
        Row(
            run=f"run{run}",
            step=step,
            architecture="net",
            task=f"task{run % tasks}",
            metrics={"test": {"accuracy": 0.1 * run + 0.01 * step}},
        )
        for run in range(runs)
        for step in range(steps)
    ]


def seeded_flip(flat: Tensor, seeds: Tensor) -> Tensor:
    """An augmentation that reverses rows with an odd seed, and adds the seed's last digits."""
    turned = torch.where((seeds % 2 == 1)[:, None], flat.flip(1), flat)
    return turned + (seeds % 1000)[:, None] / 1000
