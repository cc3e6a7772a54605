"""Properties of networks, predicted from their weights."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch

from hypergen.errors import RunError, UsageError
from hypergen.evaluation import properties_command
from hypergen.evaluation.command import evaluate_command
from hypergen.evaluation.properties import (
    _r2,
    layer_statistics,
    pooled_embeddings,
    predict_properties,
    properties_of,
    ridge,
)
from hypergen.generators import KDEGenerator, MLPGenerator
from hypergen.generators.diffusion import ConvCodec, SequenceCodec, TokenCodec
from hypergen.zoo.build.build import build_zoo
from hypergen.zoo.build.networks import NetworkZoo
from hypergen.zoo.canonical import augment
from hypergen.zoo.ensemble import Classification, Digits
from hypergen.zoo.networks import MLP
from hypergen.zoo.reading import split
from hypergen.zoo.reading.record import ZooRecord
from hypergen.zoo.store import Zoo

NETWORK = MLP(64, (8,), 10)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    recipe = NetworkZoo(
        name="digits",
        network=NETWORK,
        problem=Classification(Digits()),
        runs=30,
        steps=60,
        save_steps=(5, 20, 60),
        lr=1e-2,
    )
    folder = tmp_path_factory.mktemp("zoos") / "zoo"
    build_zoo(recipe, folder)
    return Zoo(folder)


@pytest.fixture(scope="module")
def splits(zoo):
    return split(zoo, "run", {"train": 0.6, "val": 0.2, "test": 0.2})


def statistics():
    return {"statistics": layer_statistics(NETWORK.spec())}


# -- what describes a network ----------------------------------------------------------------


def test_layer_statistics_are_those_of_torch(zoo):
    flat = zoo.flat(range(4))
    found = layer_statistics(zoo.spec)(flat).unflatten(1, (len(zoo.spec), 7))
    level = torch.tensor([0, 0.25, 0.5, 0.75, 1])
    named = zoo.spec.from_flat(flat).named()
    for i, name in enumerate(zoo.spec.names):
        values = named[name].flatten(1)
        assert torch.allclose(found[:, i, 0], values.mean(1), atol=1e-5)
        assert torch.allclose(found[:, i, 1], values.std(1, correction=0), atol=1e-5)
        assert torch.allclose(found[:, i, 2:], values.quantile(level, 1).T, atol=1e-5)


def test_embeddings_are_pooled_by_slot(zoo):
    codec = TokenCodec(zoo.spec, size=64, by="channel", normalize="slot")
    codec.fit(zoo.flat())
    flat = zoo.flat(range(3))
    found, latents = pooled_embeddings(codec)(flat), codec.encode(flat)
    first = codec.positions[:, 1] == 0
    assert torch.allclose(found[:, :64], latents[:, first].mean(1), atol=1e-5)
    # Slots of one token have no spread: that of the two matrices follows the four means.
    assert found.shape == (3, 4 * 64 + 2 * 64)
    spread = latents[:, first].std(1, correction=0)
    assert torch.allclose(found[:, 256:320], spread, atol=1e-5)
    # Rows of the first matrix may be permuted, not its columns.
    moved = augment(flat, NETWORK.symmetry(), seed=0)
    assert torch.allclose(pooled_embeddings(codec)(moved)[:, :64], found[:, :64], atol=1e-5)
    single = ConvCodec(zoo.spec, latent=5)
    assert torch.equal(pooled_embeddings(single)(flat), single.encode(flat).detach()[:, 0])


def test_what_can_be_predicted(zoo):
    found = properties_of(zoo)
    assert {"test.accuracy", "train.loss", "generalisation gap", "step"} <= found.keys()
    gap = found["train.accuracy"] - found["test.accuracy"]
    assert np.array_equal(found["generalisation gap"], gap)
    assert sorted(set(found["step"].tolist())) == [5, 20, 60]
    assert "step" not in properties_of(zoo.select(step="last"))


# -- prediction ------------------------------------------------------------------------------


def test_ridge_is_the_closed_form_with_the_penalty_that_validates_best():
    draw = torch.Generator().manual_seed(0)
    truth = torch.randn(6, generator=draw, dtype=torch.float64)

    def make(count: int, noise: float):
        x = 3 + 2 * torch.randn(count, 6, generator=draw, dtype=torch.float64)
        return x, x @ truth + 1 + noise * torch.randn(count, generator=draw, dtype=torch.float64)

    (x, y), (x_val, y_val), (x_test, y_test) = make(80, 0.1), make(40, 0.1), make(40, 0.1)
    predicted, penalty = ridge(x, y, x_val, y_val, x_test)
    mean, std = x.mean(0), x.std(0, correction=0)
    a, b, c = ((z - mean) / std for z in (x, x_val, x_test))
    errors = {}
    for log in range(-4, 6):
        matrix = a.T @ a + 10.0**log * len(a) * torch.eye(6)
        weights = torch.linalg.solve(matrix, a.T @ (y - y.mean()))
        errors[10.0**log] = float((y.mean() + b @ weights - y_val).square().mean()), weights
    best = min(errors, key=lambda p: errors[p][0])
    assert penalty == pytest.approx(best)
    assert torch.allclose(predicted, y.mean() + c @ errors[best][1])
    assert float((predicted - y_test).square().mean()) < 0.05
    # A constant feature, or none that helps, changes nothing for the worse.
    wide = [
        torch.cat([z, torch.ones(len(z), 1, dtype=torch.float64)], 1) for z in (x, x_val, x_test)
    ]
    assert torch.allclose(ridge(wide[0], y, wide[1], y_val, wide[2])[0], predicted)


def test_the_score_is_r2_on_the_test_runs_with_an_interval_over_runs(splits):
    found = predict_properties(splits, statistics(), properties=["test.accuracy", "step"])
    score = found.scores["test.accuracy"]
    fn = layer_statistics(NETWORK.spec())
    x, y = [], []
    for name in ("train", "val", "test"):
        x.append(fn(splits[name].flat()).double())
        y.append(torch.from_numpy(splits[name].metric("test", "accuracy")))
    predicted, _ = ridge(x[0], y[0], x[1], y[1], x[2])
    r2 = 1 - (predicted - y[2]).square().sum() / (y[2] - y[2].mean()).square().sum()
    assert score.r2["statistics"] == pytest.approx(float(r2))
    low, high = score.ci["statistics"]
    assert low < score.r2["statistics"] < high
    assert score.r2["statistics"] > 0.7  # training longer shows in the layers
    assert found.runs == {"train": 18, "val": 6, "test": 6}
    assert found.checkpoints == {name: 3 * runs for name, runs in found.runs.items()}
    assert score.difference is None
    assert "layer statistics" in found.to_table()


def test_few_resamples_may_miss_the_last_run():
    truth, unit = torch.arange(4).double(), torch.tensor([0, 0, 1, 2])
    found = _r2(truth, truth, unit, torch.tensor([[0, 0, 1]]))
    assert found.tolist() == [1.0]


def test_noise_predicts_nothing(splits):
    draw = torch.Generator().manual_seed(0)
    noise = {"statistics": lambda flat: torch.randn(len(flat), 8, generator=draw)}
    score = predict_properties(splits, noise, properties=["step"]).scores["step"]
    assert score.r2["statistics"] < 0.2


def test_embeddings_stand_beside_statistics(splits):
    torch.manual_seed(0)
    codec = SequenceCodec(splits["train"].spec, latent=8, dim=16, depth=1, heads=2)
    codec.fit(splits["train"].flat())
    features = {"embedding": pooled_embeddings(codec), **statistics()}
    found = predict_properties(splits, features, properties=["train.loss"])
    score = found.scores["train.loss"]
    assert score.difference is not None
    value, (low, high) = score.difference
    assert value == pytest.approx(score.r2["embedding"] - score.r2["statistics"])
    assert low <= value <= high
    assert score.r2["embedding"] > 0.5
    assert found.to_dict()["properties"]["train.loss"]["difference"]["r2"] == value


def test_runs_in_two_splits_are_refused(splits, zoo):
    with pytest.raises(UsageError, match="in train and in test"):
        predict_properties({**splits, "test": splits["train"]}, statistics())
    with pytest.raises(UsageError, match="at least 3"):
        predict_properties({**splits, "val": splits["val"][:1]}, statistics())
    with pytest.raises(UsageError, match=r"test\.accuracy"):
        predict_properties(splits, statistics(), properties=["test.acuracy"])
    bare = {
        k: v.relabel([replace(row, metrics={}, step=1) for row in v.rows])
        for k, v in splits.items()
    }
    with pytest.raises(UsageError, match="no metric"):
        predict_properties(bare, statistics())


# -- the command -----------------------------------------------------------------------------


@pytest.fixture
def run(splits, tmp_path):
    train = splits["train"].select(step="last")
    torch.manual_seed(0)
    codec = {"name": "SequenceCodec", "latent": 8, "dim": 16, "depth": 1, "heads": 2}
    net = KDEGenerator.from_weights(train.weights(), codec=codec)
    net.save_pretrained(tmp_path / "run" / "generator")
    return tmp_path / "run"


def command(run, zoo):
    return evaluate_command(argparse.Namespace(run=str(run), properties=str(zoo), json=None))


@pytest.mark.parametrize("canonical", [False, True])
def test_the_command_uses_the_runs_own_splits(run, splits, zoo, capsys, canonical):
    last = {name: view.select(step="last") for name, view in splits.items()}
    ZooRecord("none", last, {"canonical": canonical}).save(run)
    found = command(run, zoo.folder)
    assert found["runs"] == {"train": 18, "val": 6, "test": 6}
    assert found["checkpoints"]["test"] == 18  # all steps of the test runs
    assert found["properties"]["test.accuracy"]["r2"]["statistics"] > 0.5
    assert "was not trained on" in found["notes"][0]
    assert "property" in capsys.readouterr().out


def test_another_zoo_is_split_at_random(run, splits, zoo):
    assert "does not say" in command(run, zoo.folder)["notes"][0]
    last = {name: view.select(step="last") for name, view in splits.items()}
    renamed = [replace(row, run=f"other-{row.run}") for row in last["train"].rows]
    record = ZooRecord("none", {**last, "train": last["train"].relabel(renamed)}, {})
    record.save(run)
    assert "another zoo" in command(run, zoo.folder)["notes"][0]


def test_another_zoo_is_brought_to_the_order_that_the_run_saw(run, splits, zoo, monkeypatch):
    last = {name: view.select(step="last") for name, view in splits.items()}
    ZooRecord("none", last, {"canonical": True}).save(run)
    load, seen = ZooRecord.load, []

    def elsewhere(path, zoo=None):
        if zoo is not None:
            raise RunError("none of its checkpoints are in this zoo")
        return load(path)

    monkeypatch.setattr(ZooRecord, "load", staticmethod(elsewhere))
    monkeypatch.setattr(properties_command, "_canonical", lambda train: seen.append(train))
    assert "another zoo" in command(run, zoo.folder)["notes"][0]
    assert [row.run for row in seen[0].rows] == [row.run for row in last["train"].rows]


def test_runs_without_a_codec_and_zoos_of_other_networks_are_refused(run, zoo, tmp_path):
    from hypergen.conditions import HashingEncoder

    plain = MLPGenerator(zoo.spec, HashingEncoder(8), hidden=4, depth=1)
    plain.save_pretrained(tmp_path / "plain" / "generator")
    with pytest.raises(UsageError, match="codec"):
        command(tmp_path / "plain", zoo.folder)
    recipe = NetworkZoo(
        name="other",
        network=MLP(64, (4,), 10),
        problem=Classification(Digits()),
        runs=2,
        steps=2,
    )
    build_zoo(recipe, tmp_path / "other")
    with pytest.raises(UsageError, match="other shapes"):
        command(run, tmp_path / "other")
