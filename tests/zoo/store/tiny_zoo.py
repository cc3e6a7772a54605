"""A small zoo of two architectures, for tests of the store."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from hypergen.specs import FullSpec
from hypergen.zoo.store import Architecture, Block, Header, Row, Task, ZooWriter

SMALL = FullSpec(nn.Linear(3, 2))
LARGE = FullSpec(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
SPECS = {"small": SMALL, "large": LARGE}


def tiny_header(parts: int | None = 3) -> Header:
    return Header(
        name="tiny",
        licence="CC0-1.0",
        tasks={"even": Task(("Is it even?", "Say yes if even."), "parity"), "odd": Task(("Odd?",))},
        architectures={key: Architecture(spec, {"class": key}) for key, spec in SPECS.items()},
        provenance={"seed": 0},
        parts=parts,
    )


def tiny_block(architecture: str, part: int, runs: int = 2, steps: int = 2) -> Block:
    spec = SPECS[architecture]
    generator = torch.Generator().manual_seed(100 * part + len(architecture))
    weights = torch.randn(runs * steps, spec.numel, generator=generator)
    rows = [
        Row(
            run=f"{architecture}-{part}-{run}",
            step=10 * step,
            architecture=architecture,
            task="even" if run % 2 else "odd",
            seed=run,
            hyperparameters={"lr": 0.1 * (run + 1)},
            metrics={"test": {"accuracy": 0.5 + 0.1 * step}},
        )
        for run in range(runs)
        for step in range(steps)
    ]
    return Block(architecture, weights, rows)


def tiny_blocks(part: int) -> list[Block]:
    return [tiny_block("small", part), tiny_block("large", part, runs=3)]


def write_tiny_zoo(folder: Path, parts: int = 3) -> Path:
    with ZooWriter(folder, tiny_header(parts)) as writer:
        for part in range(parts):
            writer.write(part, tiny_blocks(part))
    return folder


def zoo_files(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, but the lock's."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
