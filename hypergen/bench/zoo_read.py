"""Reading a zoo, against `memcpy` of the same bytes and against one `torch.load` per sample.

Cost model: a batch of B checkpoints of n numbers is 4 B n bytes that are read and written once.
What is mapped and in the page cache costs what a copy between two buffers costs; beyond it there
are only a look at the manifest's arrays and, for random rows, the breaks between them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.progress import progress
from hypergen.bench.timing import interleave, row
from hypergen.specs import Slot, WeightSpec
from hypergen.zoo.store import Architecture, Block, Header, Row, Zoo, ZooWriter

# Name → numbers of a checkpoint, checkpoints, checkpoints of a batch.
CASES = {"100,000 weights": (100_000, 1024, 64), "3,466 weights": (3_466, 16_384, 512)}
PARTS = 4


@contextmanager
def zoo_and_files(folder: Path, numel: int, count: int, files: int) -> Iterator[tuple[Zoo, Tensor]]:
    """A zoo of random numbers, the same numbers in memory, and the first ones in a file each."""
    spec = WeightSpec([Slot("weight", (numel,), "weight")])
    numbers = torch.randn(count, numel, generator=torch.Generator().manual_seed(0))
    header = Header("bench", architectures={"flat": Architecture(spec)}, parts=PARTS)
    with ZooWriter(folder / "zoo", header) as writer:
        for part, rows in enumerate(numbers.chunk(PARTS)):
            entries = [Row(f"{part}-{i}", 0, "flat") for i in range(len(rows))]
            writer.write(part, [Block("flat", rows, entries)])
    for i in range(files):
        torch.save({"weight": numbers[i].clone()}, folder / f"{i}.pt")
    yield Zoo(folder / "zoo", verify="open"), numbers


def case(name: str, numel: int, count: int, batch: int, runs: int) -> list[dict[str, Any]]:
    """Times one size: whole passes in order and at random, and one batch by `torch.load`.

    Raises:
        AssertionError: The ways do not read the same numbers.
    """
    with (
        tempfile.TemporaryDirectory() as temporary,
        zoo_and_files(Path(temporary), numel, count, batch) as (zoo, numbers),
    ):
        out = torch.empty(batch, numel)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
        starts = range(0, count, batch)
        assert torch.equal(zoo.flat(order[:batch], out=out), numbers[order[:batch]])

        def memcpy() -> None:
            for start in starts:
                out.copy_(numbers[start : start + batch])

        def sequential() -> None:
            for start in starts:
                zoo.flat(slice(start, start + batch), out=out)

        def random() -> None:
            for start in starts:
                zoo.flat(order[start : start + batch], out=out)

        def one_batch() -> Tensor:
            return zoo.flat(torch.arange(batch).flip(0))

        def torch_load() -> Tensor:
            paths = (Path(temporary) / f"{i}.pt" for i in reversed(range(batch)))
            return torch.stack([torch.load(path, weights_only=True)["weight"] for path in paths])

        assert torch.equal(one_batch(), torch_load())
        passes: dict[str, Callable[[], object]] = {
            "memcpy": memcpy,
            "sequential": sequential,
            "random": random,
        }
        t = interleave(passes, runs=runs)
        samples = interleave({"ours": one_batch, "torch.load": torch_load}, runs=runs)
    size = f"{name}, {count:,} checkpoints in batches of {batch}"
    return [
        row(f"{size}, sequential, against memcpy", t["sequential"], t["memcpy"], t["memcpy"]),
        row(f"{size}, random rows, against memcpy", t["random"], t["memcpy"], t["memcpy"]),
        row(
            f"{name}, a random batch of {batch}, against torch.load per sample",
            samples["ours"],
            samples["torch.load"],
            None,
        ),
    ]


def run(runs: int = 9) -> dict[str, Any]:
    """Runs every case; see `hypergen bench` for the keys."""
    rows = []
    for name, (numel, count, batch) in progress(CASES.items(), desc="bench zoo", unit="case"):
        rows += case(name, numel, count, batch, runs)
    return {"name": "zoo_read", "rows": rows}
