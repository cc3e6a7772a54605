"""Small zoos whose diversity is known."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from hypergen.specs import LoRASpec, WeightSpec
from hypergen.zoo.networks import MLP
from hypergen.zoo.store import Architecture, Block, Header, Row, Task, Zoo, ZooWriter

NETWORK = MLP(inputs=6, hidden=(5, 4), outputs=3)
SPEC = NETWORK.spec()
LORA = LoRASpec(nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 4)), r=2, alpha=8)


def walk(starts: Tensor, steps: int, size: float) -> Tensor:
    """`[runs * steps, numel]`: random walks from each start, run after run."""
    generator = torch.Generator().manual_seed(1)
    moves = torch.randn(len(starts), steps, starts.shape[1], generator=generator) * size
    moves[:, 0] = 0
    return (starts[:, None] + moves.cumsum(1)).flatten(0, 1)


def independent(runs: int, spec: WeightSpec = SPEC) -> Tensor:
    return torch.stack([spec.initial(i) for i in range(runs)])


def rows_of(
    runs: int, steps: int, key: str = "net", tasks: int = 2, metrics: bool = True
) -> list[Row]:
    return [
        Row(
            run=f"{key}-run{run}",
            step=10 * step,
            architecture=key,
            task=f"task{run % tasks}" if tasks else "",
            seed=run,
            hyperparameters={"lr": 0.01 * (1 + run), "optimizer": "adamw"},
            metrics={"test": {"accuracy": 0.5 + 0.05 * run + 0.01 * step}} if metrics else {},
        )
        for run in range(runs)
        for step in range(steps)
    ]


def write(
    folder: Path,
    blocks: list[Block],
    specs: dict[str, Architecture] | None = None,
    parts: int | None = None,
) -> Zoo:
    names = sorted({row.task for block in blocks for row in block.rows if row.task})
    header = Header(
        "small zoo",
        "CC0-1.0",
        {name: Task((name,), "both") for name in names},
        specs or {"net": Architecture(SPEC, NETWORK.to_dict())},
        {"recipe": "made up"},
        parts,
    )
    with ZooWriter(folder, header) as writer:
        writer.append(blocks)
    return Zoo(folder)


def walking_zoo(folder: Path, runs: int = 5, steps: int = 4, size: float = 0.01) -> Zoo:
    return write(folder, [Block("net", walk(independent(runs), steps, size), rows_of(runs, steps))])
