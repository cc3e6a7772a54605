"""`hypergen evaluate --images`."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from hypergen.conditions import HashingEncoder
from hypergen.errors import RunNotFoundError, UsageError
from hypergen.evaluation.command import evaluate_command
from hypergen.generators import KDEGenerator
from hypergen.zoo.networks import MLP, SIREN
from hypergen.zoo.reading import split
from hypergen.zoo.reading.record import ZooRecord
from hypergen.zoo.store import Architecture, Block, Header, Row, Task, Zoo, ZooWriter

NETWORK = SIREN(2, (6,), 1)


def write(folder, network=NETWORK, count=40):
    tasks = {f"image-{i}": Task((f"An image of the digit {i % 3}.",)) for i in range(count)}
    header = Header(
        "images",
        tasks=tasks,
        architectures={"siren": Architecture(network.spec(), network.to_dict())},
    )
    rows = [
        Row(run=f"run-{i}", step=1, architecture="siren", task=f"image-{i}") for i in range(count)
    ]
    flat = torch.stack([network.spec().initial(i) for i in range(count)])
    with ZooWriter(folder, header) as writer:
        writer.append([Block("siren", flat, rows)])
    return Zoo(folder)


@pytest.fixture
def zoo(tmp_path):
    return write(tmp_path / "zoo")


def run_of(zoo, folder, kind="none", **options):
    splits = split(zoo, "run", {"train": 0.5, "val": 0.1, "test": 0.4})
    codec = {"name": "TokenCodec", "size": 8}
    net = KDEGenerator.from_weights(splits["train"].weights(), codec=codec, **options)
    net.save_pretrained(folder / "generator")
    ZooRecord(kind, splits, {}).save(folder)
    return folder


def command(run, images=12, **more):
    options = {"run": str(run), "images": images, "json": None, **more}
    return evaluate_command(argparse.Namespace(**options))


def test_images_of_generated_networks_stand_beside_real_ones(zoo, tmp_path, capsys):
    run = run_of(zoo, tmp_path / "run", bandwidth=0.0)
    found = command(run, report=str(tmp_path / "report"))
    assert list(found["values"]) == ["generated", "training", "training + 0.3 noise", "gaussian"]
    assert found["size"] == 12
    assert json.loads((tmp_path / "report" / "sets.json").read_text()) == found
    assert (tmp_path / "report" / "images.png").read_bytes().startswith(b"\x89PNG")
    assert "coverage" in capsys.readouterr().out
    # Samples without noise are training networks: no worse than a draw of these.
    gap = found["values"]["generated"]["mmd"] - found["values"]["training"]["mmd"]
    assert abs(gap) < 0.3 * found["values"]["training"]["mmd"]
    assert command(run) == found


def test_networks_are_generated_for_the_descriptions_of_the_test_split(zoo, tmp_path):
    splits = split(zoo, "run", {"train": 0.5, "val": 0.1, "test": 0.4})
    encoder = HashingEncoder(16)
    texts = [zoo.tasks[row.task].descriptions[0] for row in splits["train"].rows]
    with torch.no_grad():
        pooled = encoder(texts).pooled
    options = {"encoder": encoder, "conditions": pooled, "nearest": 4}
    found = command(run_of(zoo, tmp_path / "run", "text", **options))
    assert 0 <= found["values"]["generated"]["coverage"] <= 1
    with pytest.raises(UsageError, match="descriptions"):
        command(run_of(zoo, tmp_path / "other", "vector", **options))


def test_networks_that_are_no_images_are_refused(tmp_path):
    zoo = write(tmp_path / "zoo", MLP(3, (4,), 2))
    with pytest.raises(UsageError, match="two coordinates"):
        command(run_of(zoo, tmp_path / "run"))
    (tmp_path / "run" / "zoo.json").unlink()
    with pytest.raises(RunNotFoundError, match="trained on a zoo"):
        command(tmp_path / "run")
