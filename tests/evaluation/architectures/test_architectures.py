"""Unseen architectures beside baselines: what each baseline is, and what is reported."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from hypergen.conditions.graph import trace
from hypergen.errors import UsageError
from hypergen.evaluation.architectures import (
    evaluate_architectures,
    evaluate_inits,
    predict_property,
)
from hypergen.evaluation.architectures.methods import (
    Generated,
    averaged,
    borrowed,
    generate_all,
    swapped,
)
from hypergen.generators.graph import GraphHypernetwork
from hypergen.zoo.architectures import MLP, ArchitectureSpace, ImageProblem, Signature
from hypergen.zoo.architectures.functional import skeleton
from hypergen.zoo.architectures.train import NetworkTraining, measure, train_from

PROBLEM = ImageProblem()
SPACE = ArchitectureSpace(
    {"mlp": 1.0, "vit": 1.0, "resnet": 1.0}, (4, 14), (1, 2), max_parameters=20_000
)


@pytest.fixture(scope="module")
def hypernetwork():
    torch.manual_seed(0)
    encoder = {"name": "transformer", "dim": 16, "layers": 1}
    return GraphHypernetwork(encoder, {"name": "low_rank", "rank": 4, "features": 16}).eval()


def generated(*hidden, value=None):
    """A perceptron, each tensor of which holds its own number, or all the same."""
    one = MLP(PROBLEM.signature, hidden=hidden)
    graph = trace(skeleton(one)[0], one.signature.example())
    start = one.start()
    numbers = {n: torch.full_like(p, i) for i, (n, p) in enumerate(start.items())}
    if value is not None:
        numbers = {n: torch.full_like(p, value) for n, p in start.items()}
    return Generated(one, graph, numbers)


# -- baselines


def test_swapped_weights_stay_within_role_and_shape():
    one = generated(16, 16, 16)
    found = swapped(one, 0)
    assert sorted(float(p.mean()) for p in found.values()) == list(range(8))
    values = {n: float(p.mean()) for n, p in found.items()}
    own = {n: float(p.mean()) for n, p in one.parameters.items()}
    assert all(found[n].shape == p.shape for n, p in one.parameters.items())
    # The first and the last layer's weights are the only ones of their shapes.
    names = list(own)
    first, inner, last = names[0], [names[2], names[4]], names[6]
    assert values[first] == own[first]
    assert values[last] == own[last]
    assert [values[n] for n in inner] == [own[n] for n in inner[::-1]]


def test_borrowed_weights_are_anothers_where_there_are_such():
    everyone = [generated(16, 16), generated(16, 16, value=5.0), generated(8, 8, value=7.0)]
    start = everyone[0].architecture.start()
    found, share = borrowed(everyone, 0, start)
    assert share == 1
    assert all((p == 5).all() for p in found.values())
    found, share = borrowed(everyone, 2, everyone[2].architecture.start())
    assert 0 < share < 1
    used = {n for n, p in found.items() if not torch.equal(p, everyone[2].architecture.start()[n])}
    assert used == {list(found)[-1]}  # the bias of the outputs alone is of the same size
    assert not (found[list(found)[-1]] == 7).any()


def test_averages_leave_the_network_itself_out():
    everyone = [generated(16, value=v) for v in (1.0, 2.0, 6.0)]
    start = everyone[0].architecture.start()
    assert all((p == 4).all() for p in averaged(everyone, 0, start).values())
    assert all((p == 3.5).all() for p in averaged(everyone, 1, start).values())
    alone = averaged(everyone[:1], 0, start)
    assert all(torch.equal(alone[n], start[n]) for n in start)


def test_generation_does_not_depend_on_what_is_generated_together(hypernetwork):
    found = SPACE.distinct(PROBLEM.signature, "test", 10)
    together = generate_all(hypernetwork, found)
    alone = generate_all(hypernetwork, found[9:])[0]
    assert together[9].architecture == alone.architecture
    for name, value in alone.parameters.items():
        assert torch.allclose(value, together[9].parameters[name], atol=1e-5)


# -- evaluation


class Oracle(nn.Module):
    """Gives to every architecture what training it gives."""

    def __init__(self):
        super().__init__()
        self.inner = GraphHypernetwork({"name": "transformer", "dim": 8, "layers": 1})

    def forward(self, graphs):
        weights = self.inner(graphs)
        for graph, made in zip(graphs, weights, strict=True):
            one = self.known[graph.hash]
            with torch.enable_grad():
                trained, _ = train_from(one, one.start(9), PROBLEM, NetworkTraining(40))
            for name, value in trained.items():
                made[name][0].copy_(value)
        return weights

    def embed(self, graphs):
        return self.inner.embed(graphs)


def test_every_split_has_every_method(hypernetwork, tmp_path):
    training = NetworkTraining(5)
    found = evaluate_architectures(
        hypernetwork, PROBLEM, SPACE, count=4, samples=60, training=training
    )
    assert list(found.splits) == ["test", "wide", "deep", "norm_free"]
    methods = ["default", "mean", "other", "swapped", "generated", "trained"]
    data = json.loads(json.dumps(found.to_dict()))
    for split in found.splits.values():
        assert list(split.accuracy) == methods
        assert all(len(v) == 4 and v.isfinite().all() for v in split.accuracy.values())
        low, high = split.interval("generated")
        assert low <= float(split.accuracy["generated"].mean()) <= high
        rows = data["splits"][split.name]["architectures"]
        assert len(rows) == 4
        one, row = split.architectures[0], rows[0]
        again = measure(one, one.start(0), PROBLEM, "test", 60)
        assert row["accuracy"]["default"] == pytest.approx(again.accuracy)
    table = found.to_table()
    assert all(label in table for label in ("chance", "places swapped", "generated", "trained"))
    paths = found.save(tmp_path / "report")
    assert [p.name for p in paths] == ["architectures.json", "architectures.png"]
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert found.plot() == found.plot()


def test_good_weights_are_seen_to_be_good():
    space = ArchitectureSpace({"mlp": 1.0}, (4, 14), (1, 2))
    oracle = Oracle()
    known = space.distinct(PROBLEM.signature, "test", 4)
    oracle.known = {trace(skeleton(a)[0], a.signature.example()).hash: a for a in known}
    found = evaluate_architectures(oracle, PROBLEM, space, ["test"], count=4, samples=100)
    split = found.splits["test"]
    assert float(split.accuracy["generated"].mean()) > 0.7
    value, (low, _) = split.versus("default")
    assert value > low > 0.2


def test_the_same_seed_gives_the_same_numbers(hypernetwork):
    a, b = (
        evaluate_architectures(hypernetwork, PROBLEM, SPACE, ["test"], count=3, samples=40)
        for _ in range(2)
    )
    assert a.to_dict() == b.to_dict()


# -- starts


def test_starts_are_compared_by_kind_of_network(hypernetwork, tmp_path):
    found = evaluate_inits(
        {"run": hypernetwork},
        PROBLEM,
        SPACE,
        NetworkTraining(5),
        rates=(1e-3, 0.1),
        count=3,
        tuned=2,
        samples=60,
        noise=0.1,
        orthogonal=True,
    )
    assert list(found.groups) == ["convnets", "vits", "mlps"]
    for group in found.groups.values():
        assert list(group.accuracy) == ["run", "default"]
        assert {a.group for a in group.architectures} == {group.name}
        assert set(group.rates.values()) <= {1e-3, 0.1}
    one = found.groups["mlps"]
    a = one.architectures[0]
    training = NetworkTraining(5, one.rates["default"])
    trained, _ = train_from(a, a.start(0), PROBLEM, training)
    expected = measure(a, trained, PROBLEM, "test", 60).accuracy
    assert float(one.accuracy["default"][0]) == pytest.approx(expected)
    json.dumps(found.to_dict())
    assert "run minus it" in found.to_table()
    assert [p.name for p in found.save(tmp_path)] == ["inits.json", "inits.png"]


def test_a_start_of_the_default_name_is_refused(hypernetwork):
    with pytest.raises(UsageError, match="default"):
        evaluate_inits({"default": hypernetwork}, PROBLEM, SPACE, NetworkTraining(1))
    with pytest.raises(UsageError, match="dense"):
        evaluate_inits({"a": hypernetwork}, PROBLEM, SPACE, NetworkTraining(1), split="dense")


# -- properties


def test_a_linear_property_is_predicted_and_noise_is_not():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(60, 8, generator=random)
    y = x @ torch.randn(8, generator=random)
    fit = predict_property(x, y)
    assert fit.r2 > 0.99
    assert fit.interval[0] <= fit.r2 <= fit.interval[1]
    assert predict_property(x, torch.randn(60, generator=random)).r2 < 0.3
    with pytest.raises(UsageError, match="at least 10"):
        predict_property(x[:9], y[:9])


def test_the_signature_of_a_problem_is_that_of_its_networks():
    assert PROBLEM.signature == Signature("images", (1, 8, 8), 10)
