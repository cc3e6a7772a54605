"""Tiny recipes: networks that train in milliseconds, and jobs that fail."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch

from hypergen.specs import Slot, WeightSpec
from hypergen.zoo.build import Recipe
from hypergen.zoo.store import Architecture, Block, Header, Row

TINY = """\
recipe: NetworkZoo
name: tiny
licence: CC0-1.0
network: {class_path: MLP, init_args: {inputs: 64, hidden: [6], outputs: 10}}
widths: [[6], [5]]
problem: {class_path: Classification, init_args: {source: Digits}}
runs: 10
runs_per_job: 2
steps: 6
save_steps: [0, 3, 6]
batch_size: 8
evaluation_samples: 50
lr: {log_uniform: [1e-3, 1e-2]}
weight_decay: {choice: [0, 0.1]}
"""


def tiny_file(folder: Path) -> Path:
    """The tiny recipe as a file."""
    path = folder / "tiny.yaml"
    path.write_text(TINY)
    return path


def file_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a zoo but its lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@dataclass(frozen=True)
class CountingZoo(Recipe):
    """Checkpoints that hold their job's number; one job may go wrong.

    Args:
        count: Number of jobs.
        fails: The job that goes wrong, -1 for none.
        how: `memory`, `torch`, `kill` (the process is killed), `bug` or `interrupt`.
    """

    name: str = "counting"
    count: int = 4
    fails: int = -1
    how: str = "memory"
    steps: int = 1
    device: str = "cpu"

    def header(self):
        spec = WeightSpec([Slot("a", (3,), "weight")], {"kind": "test"})
        recipe = {"recipe": self.to_dict()}
        return Header(self.name, "", {}, {"net": Architecture(spec)}, recipe, self.count)

    def jobs(self):
        return self.count

    @property
    def advice(self):
        return "count to less"

    def run(self, job, on_step=None):
        if job == self.fails:
            if self.how == "memory":
                raise MemoryError
            if self.how == "torch":
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried 9 bytes")
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "interrupt":
                raise KeyboardInterrupt
            raise ZeroDivisionError("a bug")
        if on_step is not None:
            on_step(1)
        threads = torch.tensor([job, torch.get_num_threads(), 0.0])
        return [Block("net", threads[None], [Row(f"run-{job}", 1, "net")])]
