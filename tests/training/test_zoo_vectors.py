"""Checkpoints with the class vectors of their tasks."""

from __future__ import annotations

import itertools

import pytest
import torch

from hypergen.errors import UsageError
from hypergen.specs import FullSpec
from hypergen.training.zoo_vectors import ZooVectorsDataModule
from hypergen.zoo.store import Architecture, Block, Header, Row, Task, ZooWriter

SPEC = FullSpec(torch.nn.Linear(4, 2))
CLASSES = ["a", "b", "c", "d"]


def write(path, tasks):
    header = Header("sets", tasks=tasks, architectures={"net": Architecture(SPEC)})
    rows = [Row(f"{name}-run", 1, "net", name) for name in tasks]
    with ZooWriter(path, header) as writer:
        writer.append([Block("net", torch.randn(len(rows), SPEC.numel), rows)])
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tasks = {}
    for count in (1, 2, 3):
        for subset in itertools.combinations(CLASSES, count):
            rest = [c for c in CLASSES if c not in subset]
            family = "|".join(sorted(["+".join(subset), "+".join(rest)]))
            tasks["+".join(subset)] = Task((), family, {"classes": list(subset)})
    tasks["other"] = Task()
    return write(tmp_path_factory.mktemp("zoos") / "zoo", tasks)


def test_bits_are_those_of_the_task(folder):
    data = ZooVectorsDataModule(folder, fractions={"train": 0.6, "val": 0.2, "test": 0.2})
    assert data.names == CLASSES
    assert data.vectors["a+c"] == (1, 0, 1, 0)
    batch = next(iter(data.train_dataloader()))
    zoo = data.splits["train"]
    flat = zoo.flat()
    for weights, row in zip(batch["weights"], batch["gather"], strict=True):
        task = zoo.rows[int((flat == weights).all(1).nonzero()[0])].task
        assert batch["raw"][int(row)] == data.vectors[task]


def test_complements_are_held_out_together(folder):
    splits = ZooVectorsDataModule(folder).splits
    trained = {row.task for row in splits["train"].rows}
    assert "other" not in trained
    for row in splits["test"].rows:
        complement = "+".join(c for c in CLASSES if c not in row.task.split("+"))
        assert row.task not in trained
        assert complement not in trained


def test_the_encoder_is_fitted_and_trained(folder):
    data = ZooVectorsDataModule(folder, dim=8)
    encoder = data.encoder
    assert encoder.length == 4
    assert bool(encoder.statistics.fitted)
    batch = next(iter(data.val_dataloader()))
    assert encoder(batch["raw"]).tokens.shape[1:] == (4, 8)


def test_lists_of_numbers_are_taken_as_they_are(tmp_path):
    tasks = {f"t{i}": Task((), "", {"classes": ["x"], "angle": [i, 0.5]}) for i in range(5)}
    data = ZooVectorsDataModule(write(tmp_path / "zoo", tasks), key="angle")
    assert data.vectors["t3"] == (3.0, 0.5)
    assert data.names == ["angle[0]", "angle[1]"]


def test_bad_vectors_are_told(tmp_path):
    tasks = {f"t{i}": Task((), "", {"v": [0.0] * (1 + i // 3)}) for i in range(5)}
    path = write(tmp_path / "zoo", tasks)
    with pytest.raises(UsageError, match="'v' of task 't3' is no list of 1 numbers"):
        _ = ZooVectorsDataModule(path, key="v").vectors
    with pytest.raises(UsageError, match="no task with 'classes'"):
        _ = ZooVectorsDataModule(path).encoder
