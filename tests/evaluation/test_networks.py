"""Stacked scoring: equal to one network at a time, and to what the zoo recorded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hypergen.errors import UsageError, WeightsError
from hypergen.evaluation.networks import (
    answers_of,
    best_tasks,
    evaluate_networks,
    problem_of,
)
from hypergen.zoo import build_zoo
from hypergen.zoo.build import NetworkZoo
from hypergen.zoo.ensemble import Classification, Digits, ImageFit
from hypergen.zoo.networks import CNN, MLP, SIREN, Network, ViT

NETWORKS = {
    "mlp": MLP(64, (8,), 10),
    "mlp-norm": MLP(64, (8,), 10, norm="batch"),
    "cnn": CNN((1, 8, 8), (4, 6), 10, norm="batch", residual=True),
    "cnn-layer": CNN((1, 8, 8), (4,), 10, norm="layer"),
    "vit": ViT((1, 8, 8), 4, 8, 1, 2, 8, 10),
    "siren": SIREN(2, (8,), 1),
}


def make(folder, network, problem=None, **options):
    problem = problem or (
        ImageFit(Digits(), 3) if isinstance(network, SIREN) else Classification(Digits())
    )
    recipe = NetworkZoo("tiny", network, problem, **{"runs": 3, "steps": 40, "lr": 1e-2, **options})
    return build_zoo(recipe, folder, workers=1)


@pytest.fixture(scope="module")
def zoos(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made[name] = make(tmp_path_factory.mktemp(name) / "zoo", NETWORKS[name])
        return made[name]

    return get


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_those_that_the_zoo_recorded(zoos, name):
    zoo = zoos(name)
    split = "train" if name == "siren" else "test"
    found = evaluate_networks(zoo, zoo.flat(), split, [row.task for row in zoo])
    for metric, values in found.metrics.items():
        expected = torch.from_numpy(zoo.metric(split, metric)).float()
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
    assert (found.predictions is None) == (name == "siren")


@pytest.mark.parametrize("name", ["mlp", "cnn", "vit"])
def test_outputs_are_those_of_one_network_at_a_time(zoos, name, monkeypatch):
    zoo = zoos(name)
    problem = problem_of(zoo)
    monkeypatch.setattr("hypergen.evaluation.networks._MEMORY", 1)  # one network, one sample
    found = evaluate_networks(zoo, zoo.flat(), limit=9, outputs=True, problem=problem)
    module = Network.from_dict(zoo.architecture.config).module().eval()
    x = problem.inputs("test")[:9]
    x = x.flatten(1) if name == "mlp" else x
    for i, one in enumerate(zoo.weights()):
        module.load_state_dict({k: v[0] for k, v in one.named().items()})
        torch.testing.assert_close(found.outputs[i], module(x).detach(), rtol=1e-4, atol=1e-5)
    right = found.predictions == answers_of(problem, "test", 9)[found.tasks]
    torch.testing.assert_close(found.metrics["accuracy"], right.float().mean(1))


def test_no_networks_are_no_scores(zoos):
    zoo = zoos("mlp")
    assert evaluate_networks(zoo, zoo.flat()[:0]).metrics == {}


# -- batch norm --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cnn", "mlp-norm"])
def test_statistics_are_those_of_the_training_images(zoos, name):
    """Against torch's own cumulative average, one network at a time."""
    zoo = zoos(name)
    problem = problem_of(zoo)
    spoiled = spoil(zoo, zoo.flat())
    found = evaluate_networks(zoo, spoiled, batch_norm="train", batch_norm_samples=10**6)
    module = Network.from_dict(zoo.architecture.config).module()
    train, test = (problem.inputs(s) for s in ("train", "test"))
    if name == "mlp-norm":
        train, test = train.flatten(1), test.flatten(1)
    for i, one in enumerate(zoo.weights()):
        module.load_state_dict({k: v[0] for k, v in one.named().items()})
        for layer in module.modules():
            if hasattr(layer, "running_mean"):
                layer.momentum = 1.0
        with torch.no_grad():
            module.train()(train)
            accuracy = (module.eval()(test).argmax(1) == problem.data.labels["test"]).float().mean()
        assert found.metrics["accuracy"][i] == pytest.approx(float(accuracy), abs=2e-3)
    assert (found.metrics["loss"] < evaluate_networks(zoo, spoiled).metrics["loss"]).all()


def spoil(zoo, flat):
    """The weights with statistics of no network."""
    weights = zoo.spec.from_flat(flat.clone())
    named = {
        k: torch.full_like(v, 7.0) if "running" in k else v for k, v in weights.named().items()
    }
    return torch.cat([named[slot.name].flatten(1) for slot in zoo.spec], dim=1)


def test_statistics_never_come_from_test_images(zoos, monkeypatch):
    """Other test images change nothing but the score on them."""
    zoo = zoos("cnn")
    seen: list[Tensor] = []

    def spy(module, weights, inputs, members):
        seen.append(inputs.clone())
        from hypergen.evaluation.batch_norm import reestimate

        out = reestimate(module, weights, inputs, members)
        seen.append(out["stages.0.down.norm.running_mean"])
        return out

    monkeypatch.setattr("hypergen.evaluation.networks.reestimate", spy)
    problem = problem_of(zoo)
    evaluate_networks(zoo, zoo.flat(), batch_norm="train", problem=problem)
    images = problem.data.images
    original, images["test"] = images["test"], images["test"] * 100 + 5
    try:
        evaluate_networks(zoo, zoo.flat(), batch_norm="train", problem=problem)
    finally:
        images["test"] = original
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    rows = {tuple(image.flatten().tolist()) for image in images["train"]}
    assert all(tuple(image.flatten().tolist()) in rows for image in seen[0])
    assert len(seen[0]) == 512


def test_architectures_without_batch_norm_are_left_alone(zoos):
    zoo = zoos("cnn-layer")
    a, b = (evaluate_networks(zoo, zoo.flat(), batch_norm=b) for b in ("stored", "train"))
    assert torch.equal(a.metrics["loss"], b.metrics["loss"])


# -- tasks -------------------------------------------------------------------------------------


def test_each_network_is_scored_on_its_own_task(tmp_path):
    problem = Classification(Digits(), [[1], [2, 3]])
    zoo = make(tmp_path / "zoo", MLP(64, (8,), 2), problem, runs=4, steps=60)
    own = evaluate_networks(zoo, zoo.flat(), tasks=[row.task for row in zoo])
    other = evaluate_networks(zoo, zoo.flat(), tasks=1 - own.tasks)
    assert (own.metrics["accuracy"] > other.metrics["accuracy"]).all()
    assert torch.equal(own.predictions, other.predictions)
    answers = answers_of(problem_of(zoo), "test")
    assert torch.equal(best_tasks(own.predictions, answers), own.tasks)
    with pytest.raises(UsageError, match="has 2 tasks: say which"):
        evaluate_networks(zoo, zoo.flat())
    with pytest.raises(UsageError, match="no task '4'"):
        evaluate_networks(zoo, zoo.flat(), tasks=["4"] * 4)
    with pytest.raises(UsageError, match="as many task numbers"):
        evaluate_networks(zoo, zoo.flat(), tasks=["1"])
    with pytest.raises(UsageError, match="tasks 0…1"):
        evaluate_networks(zoo, zoo.flat(), tasks=torch.tensor([0, 1, 2, 0]))


def test_what_cannot_be_scored_says_why(zoos):
    zoo = zoos("mlp")
    with pytest.raises(WeightsError, match=r"are \[N, 610\] numbers, not \[3, 609\]"):
        evaluate_networks(zoo, zoo.flat()[:, 1:])
    with pytest.raises(UsageError, match="no split 'tset'"):
        evaluate_networks(zoo, zoo.flat(), "tset")
    with pytest.raises(UsageError, match="batch_norm cannot be 'test'"):
        evaluate_networks(zoo, zoo.flat(), batch_norm="test")
    stranger = zoo[:]
    stranger.header = type(zoo.header)(**{**vars(zoo.header), "provenance": {}})
    with pytest.raises(UsageError, match="does not record a problem"):
        problem_of(stranger)
