"""Networks for tasks that no training network was trained on."""

from __future__ import annotations

import json

import pytest
import torch

from hypergen.conditions import VectorEncoder
from hypergen.errors import UsageError
from hypergen.evaluation.unseen import _ridge, evaluate_unseen
from hypergen.generators import MLPGenerator
from hypergen.zoo.build.build import build_zoo
from hypergen.zoo.build.networks import NetworkZoo
from hypergen.zoo.ensemble import Classification, Digits
from hypergen.zoo.networks import MLP
from hypergen.zoo.store import Zoo

SETS = [[0], [1], [0, 1], [2], [0, 2], list(range(1, 10))]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    recipe = NetworkZoo(
        name="sets",
        network=MLP(64, (8,), 2),
        problem=Classification(Digits(), SETS),
        runs=6,
        steps=60,
        lr=1e-2,
        shared_start=True,
    )
    folder = tmp_path_factory.mktemp("zoos") / "zoo"
    build_zoo(recipe, folder)
    return Zoo(folder)


@pytest.fixture(scope="module")
def conditions(zoo):
    names = [str(c) for c in range(10)]
    return {
        t: [float(n in task.metadata["classes"]) for n in names] for t, task in zoo.tasks.items()
    }


@pytest.fixture(scope="module")
def generator(zoo):
    torch.manual_seed(0)
    return MLPGenerator(zoo.spec, VectorEncoder(10, 8), hidden=16, depth=1)


@pytest.fixture(scope="module")
def found(zoo, conditions, generator):
    parts = zoo.select(task=["0", "1", "0+2"]), zoo.select(task=["0+1", "2"])
    return evaluate_unseen(generator, *parts, conditions, samples=2, resamples=50)


def test_copies_and_oracles_score_as_their_networks_do(found, zoo):
    accuracy = dict(zip(zoo.column("task"), zoo.metric("test", "accuracy").tolist(), strict=True))
    assert found.tasks == ["0+1", "2"]
    trained = found.scores["trained"].values.tolist()
    assert trained == pytest.approx([accuracy["0+1"], accuracy["2"]], abs=1e-6)
    assert found.distance.tolist() == pytest.approx([1.0, 1.0])
    # A network that knows {0} is right about {0, 1} but for the ones, and says no as often as yes.
    assert 0.7 < float(found.scores["nearest"].values[0]) < 1
    assert set(found.scores) >= {"generated", "best", "linear", "mean", "shuffled", "majority"}


def test_what_is_generated_is_scored_on_its_own_task(found, zoo, conditions, generator):
    from hypergen.evaluation.zoo_networks import ZooNetworks

    weights = generator.generate(vector=[conditions["2"]]).flat()
    score = ZooNetworks(zoo).score(weights, ["2"], "test")["accuracy"]
    assert float(found.scores["generated"].values[1]) == pytest.approx(float(score), abs=1e-6)


def test_numbers_table_and_picture(found, tmp_path):
    told = found.to_dict()
    assert json.dumps(told)
    assert told["methods"]["generated"]["generated_minus_it"] == 0
    low, high = told["methods"]["nearest"]["ci"]
    assert low <= told["methods"]["nearest"]["accuracy"] <= high
    lines = found.to_table().splitlines()
    assert "2 unseen tasks of 2 families, 2 networks each" in lines[0]
    assert len(lines) == 3 + len(found.scores)
    paths = found.save(tmp_path / "report")
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_complements_are_one_family(zoo, conditions, generator):
    parts = zoo.select(task=["1", "2"]), zoo.select(task=["0", "1+2+3+4+5+6+7+8+9", "0+1"])
    found = evaluate_unseen(generator, *parts, conditions, samples=1, resamples=20)
    assert found.families == 2
    assert "best" not in found.scores


def test_seen_tasks_and_missing_conditions_are_told(zoo, conditions, generator):
    with pytest.raises(UsageError, match="'0' is in training too"):
        evaluate_unseen(generator, zoo, zoo.select(task="0"), conditions)
    without = {k: v for k, v in conditions.items() if k != "2"}
    with pytest.raises(UsageError, match="'2' has no condition"):
        evaluate_unseen(generator, zoo.select(task="0"), zoo.select(task="2"), without)


def test_ridge_finds_a_linear_map():
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(40, 3, generator=g), torch.randn(3, 5, generator=g)
    y = x @ w + 2
    new = torch.randn(4, 3, generator=g)
    torch.testing.assert_close(_ridge(x, y, new), new @ w + 2, rtol=1e-3, atol=1e-3)
    noise = torch.randn(40, 5, generator=g)
    assert _ridge(x, noise, new).std() < 0.7  # nothing to find: close to the mean
