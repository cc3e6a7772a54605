"""What a run keeps of the zoo that it was trained on."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from hypergen.errors import RunError
from hypergen.specs import FullSpec
from hypergen.zoo.reading.record import RECORD, ZooRecord, has_record
from hypergen.zoo.store import Architecture, Block, Header, Row, Zoo, ZooWriter

SPEC = FullSpec(torch.nn.Linear(2, 2))


@pytest.fixture
def zoo(tmp_path):
    rows = [Row(f"r{i}", step, "net") for i in range(3) for step in (1, 2)]
    header = Header("z", architectures={"net": Architecture(SPEC)})
    with ZooWriter(tmp_path / "zoo", header) as writer:
        writer.append([Block("net", torch.randn(6, SPEC.numel), rows)])
    return Zoo(tmp_path / "zoo")


def test_splits_are_read_back(zoo, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    assert not has_record(run)
    ZooRecord("pairs", {"train": zoo[[3, 0]], "test": zoo[[5]]}, {"metric": "val.loss"}).save(run)
    assert has_record(run)
    again = ZooRecord.load(run)
    assert (again.kind, again.settings) == ("pairs", {"metric": "val.loss"})
    assert torch.equal(again.splits["train"].flat(), zoo.flat([3, 0]))
    assert torch.equal(again.splits["test"].flat(), zoo.flat([5]))


def test_a_zoo_that_moved_is_named(zoo, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    ZooRecord("pairs", {"train": zoo}).save(run)
    shutil.move(tmp_path / "zoo", tmp_path / "elsewhere")
    with pytest.raises(RunError, match="is gone"):
        ZooRecord.load(run)
    assert len(ZooRecord.load(run, tmp_path / "elsewhere").splits["train"]) == 6


def test_damage_is_told(zoo, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(RunError, match="not trained on a zoo"):
        ZooRecord.load(run)
    ZooRecord("pairs", {"train": zoo}).save(run)
    data = json.loads((run / RECORD).read_text())
    (run / RECORD).write_text(json.dumps({**data, "splits": {"train": [["r9", 1, "net"]]}}))
    with pytest.raises(RunError, match="no checkpoint of run 'r9'"):
        ZooRecord.load(run)
    (run / RECORD).write_text(json.dumps({"format_version": 1}))
    with pytest.raises(RunError, match="damaged"):
        ZooRecord.load(run)
    (run / RECORD).write_text(json.dumps({**data, "format_version": 2}))
    with pytest.raises(RunError, match="version 2"):
        ZooRecord.load(run)
