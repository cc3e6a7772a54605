"""Networks of a zoo, scored and trained on in stacks."""

from __future__ import annotations

import pytest
import torch

from hypergen.errors import RunError, UsageError
from hypergen.evaluation.zoo_networks import ZooNetworks
from hypergen.zoo.build.build import build_zoo
from hypergen.zoo.build.networks import NetworkZoo
from hypergen.zoo.ensemble import Classification, Digits
from hypergen.zoo.networks import MLP
from hypergen.zoo.store import Architecture, Block, Header, Row, Zoo, ZooWriter


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    recipe = NetworkZoo(
        name="sets",
        network=MLP(64, (6,), 2),
        problem=Classification(Digits(), [[0], [1, 2], [3, 4, 5]]),
        runs=6,
        steps=20,
        save_steps=(0, 20),
        lr=1e-2,
    )
    folder = tmp_path_factory.mktemp("zoos") / "zoo"
    build_zoo(recipe, folder)
    return Zoo(folder)


def test_scores_are_those_that_the_zoo_wrote_down(zoo):
    networks = ZooNetworks(zoo)
    tasks = zoo.column("task")
    for split in ("train", "val", "test"):
        scores = networks.score(zoo.flat(), tasks, split)
        for name, values in scores.items():
            torch.testing.assert_close(
                values.double(), torch.from_numpy(zoo.metric(split, name)), rtol=1e-4, atol=1e-5
            )


def test_statistics_of_generated_networks_are_measured_on_training_samples(tmp_path):
    recipe = NetworkZoo(
        name="norm",
        network=MLP(64, (6,), 2, norm="batch"),
        problem=Classification(Digits(), [[0], [1, 2]]),
        runs=2,
        steps=30,
        lr=1e-2,
    )
    build_zoo(recipe, tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    networks, tasks = ZooNetworks(zoo), zoo.column("task")
    spoilt = zoo.weights()
    for slot in zoo.spec:
        if slot.name.endswith("running_mean"):
            spoilt[slot.name].add_(50)
    good, bad = (networks.score(flat, tasks, "test") for flat in (zoo.flat(), spoilt.flat()))
    again = networks.score(spoilt.flat(), tasks, "test", generated=True)
    assert (bad["accuracy"] < good["accuracy"] - 0.02).all()
    assert (again["accuracy"] > good["accuracy"] - 0.02).all()


def test_majority_is_the_frequent_answer(zoo):
    networks = ZooNetworks(zoo)
    labels = networks.problem.data.labels["test"]
    shares = [1 - (labels == 0).double().mean(), torch.isin(labels, torch.tensor([3, 4, 5]))]
    expected = [float(shares[0]), 1 - float(shares[1].double().mean())]
    found = networks.majority(["0", "3+4+5"], "test")
    assert found.tolist() == pytest.approx(expected)


def test_training_goes_on_from_given_weights(zoo):
    networks = ZooNetworks(zoo)
    start = zoo.select(step=0)
    tasks = start.column("task")
    curve, flat = networks.train(start.flat(), tasks, [0, 5, 40], lr=1e-2, split="val")
    assert curve["loss"].shape == (3, 6)
    torch.testing.assert_close(
        curve["loss"][0].double(), torch.from_numpy(start.metric("val", "loss")), rtol=1e-4, atol=0
    )
    assert (curve["loss"][2] < curve["loss"][0]).all()
    torch.testing.assert_close(networks.score(flat, tasks, "val")["loss"], curve["loss"][2])
    again, _ = networks.train(start.flat(), tasks, [40], lr=[1e-2] * 6, split="val")
    assert torch.equal(again["loss"][0], curve["loss"][2])


def test_a_step_of_adam_moves_every_number_by_its_rate(zoo):
    networks = ZooNetworks(zoo)
    end = zoo.select(step=20)
    _, flat = networks.train(end.flat(), end.column("task"), [1], lr=[1e-3, 1e-4] * 3)
    moved = (flat - end.flat()).abs().amax(1)
    torch.testing.assert_close(moved, torch.tensor([1e-3, 1e-4] * 3), rtol=1e-2, atol=0)


def test_bad_input_is_told(zoo, tmp_path):
    networks = ZooNetworks(zoo)
    with pytest.raises(UsageError, match="no task '9'"):
        networks.score(zoo.flat([0]), ["9"], "val")
    with pytest.raises(UsageError, match="split"):
        networks.score(zoo.flat([0]), ["0"], "heldout")
    with pytest.raises(UsageError, match="1 networks need"):
        networks.score(zoo.flat([0]), ["0", "0"], "val")
    with pytest.raises(UsageError, match="rise"):
        networks.train(zoo.flat([0]), ["0"], [3, 1], lr=1e-3)
    network = MLP(4, (3,), 2)
    header = Header("made", architectures={"net": Architecture(network.spec(), network.to_dict())})
    with ZooWriter(tmp_path / "made", header) as writer:
        writer.append([Block("net", torch.zeros(1, network.spec().numel), [Row("r", 0, "net")])])
    with pytest.raises(RunError, match="does not say what its networks were trained on"):
        ZooNetworks(Zoo(tmp_path / "made"))
