"""Networks called with given parameters, trained from them, and their starts changed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen.conditions.graph import trace
from hypergen.errors import UsageError, WeightsError
from hypergen.specs import FullSpec
from hypergen.zoo.architectures import GPT, MLP, ImageProblem, ResNet, Signature
from hypergen.zoo.architectures.functional import call, predicted_norm, skeleton
from hypergen.zoo.architectures.train import (
    NetworkTraining,
    measure,
    prepare_start,
    train_from,
)

IMAGES = Signature("images", (1, 8, 8), 10)
PROBLEM = ImageProblem()
NET = MLP(IMAGES, hidden=(24, 24))


def test_a_call_with_a_modules_parameters_is_the_module():
    for one in (NET, ResNet(IMAGES, (4, 8), (1, 1)), GPT(Signature("tokens", (6,), 9), dim=8)):
        module = one.module()
        tokens = one.signature.kind == "tokens"
        x = torch.randint(9, (3, 6)) if tokens else torch.randn(3, 1, 8, 8)
        own = {n: p.detach() for n, p in module.named_parameters()}
        assert torch.allclose(call(one, own, x), module(x), atol=1e-6)
        assert skeleton(one)[0] is skeleton(one)[0]
        assert all(p.is_meta for p in skeleton(one)[0].parameters())


def test_parameters_that_lack_or_are_left_over_are_named():
    start = NET.start()
    first = next(iter(start))
    with pytest.raises(WeightsError, match=first):
        call(NET, {n: p for n, p in start.items() if n != first}, torch.randn(2, 1, 8, 8))
    with pytest.raises(WeightsError, match="unexpected parameter 'more'"):
        call(NET, {**start, "more": torch.ones(1)}, torch.randn(2, 1, 8, 8))


def test_weights_become_parameters_with_their_gradients():
    spec = FullSpec(NET.module())
    flat = torch.randn(2, spec.numel, requires_grad=True)
    weights = spec.from_flat(flat)
    for row in (0, 1):
        found = weights.row(row)
        assert list(found) == list(spec.names)
        assert all(torch.equal(p, weights[n][row]) for n, p in found.items())
    one = spec.from_flat(flat[:1])
    x = torch.randn(4, 1, 8, 8)
    (gradient,) = torch.autograd.grad(call(NET, one.row(), x).square().sum(), flat)
    leaves = {n: p.detach().clone().requires_grad_() for n, p in one.row().items()}
    call(NET, leaves, x).square().sum().backward()
    expected = spec.from_flat(gradient[:1])
    for name, leaf in leaves.items():
        assert torch.allclose(expected[name][0], leaf.grad, atol=1e-4, rtol=1e-4)
    assert not gradient[1].any()


def test_a_network_that_validation_met_first_is_traced_and_trained():
    network = MLP(Signature("images", (1, 8, 8), 10), hidden=(13, 11))
    with torch.inference_mode():
        call(network, network.start(), torch.zeros(2, 1, 8, 8))
    graph = trace(skeleton(network)[0], network.signature.example(), cache=False)
    assert set(graph.parameters) == skeleton(network)[1]


def test_the_predicted_norm_counts_scalars():
    module = torch.nn.ParameterDict({"a": torch.nn.Parameter(torch.tensor(3.0))})
    spec = FullSpec(module)
    assert float(predicted_norm(spec.from_flat(torch.tensor([[-3.0]])))) == 3.0


def test_the_predicted_norm_is_that_of_every_tensor():
    spec = FullSpec(NET.module())
    weights = spec.from_flat(torch.randn(2, spec.numel))
    expected = sum(w.flatten(1).norm(dim=1).sum() for w in weights.named().values())
    assert torch.allclose(predicted_norm(weights), expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_learns_and_repeats_itself(optimizer):
    start = NET.start(1)
    kept = {n: p.clone() for n, p in start.items()}
    training = NetworkTraining(60, 0.1 if optimizer == "sgd" else 1e-2, optimizer)
    trained, losses = train_from(NET, start, PROBLEM, training)
    again, _ = train_from(NET, start, PROBLEM, training)
    assert all(torch.equal(trained[n], again[n]) for n in start)
    assert all(torch.equal(start[n], kept[n]) for n in start)
    assert losses.shape == (60,)
    assert losses[-5:].mean() < 0.5 * losses[:5].mean()
    before, after = (measure(NET, p, PROBLEM, "val") for p in (start, trained))
    assert after.accuracy > 0.7 > 0.3 > before.accuracy
    assert after.loss < before.loss


def test_a_module_of_ones_own_is_trained_from_any_start():
    torch.manual_seed(0)
    own = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(288, 10),
    )  # fmt: skip
    start = {n: p.detach().clone() for n, p in own.named_parameters()}
    made = prepare_start(start, noise=0.1, orthogonal=True)
    trained, losses = train_from(own, made, PROBLEM, NetworkTraining(30))
    assert losses[-3:].mean() < 0.6 * losses[0]
    assert all(torch.equal(p, start[n]) for n, p in own.named_parameters())
    assert measure(own, trained, PROBLEM, "val").accuracy > 0.6
    with pytest.raises(WeightsError, match=r"Sequential lack parameter '0\.bias'"):
        train_from(own, {"0.weight": made["0.weight"]}, PROBLEM, NetworkTraining(1))


def test_starts_see_the_same_batches():
    training = NetworkTraining(3, 1e-9)
    first = train_from(NET, NET.start(0), PROBLEM, training, seed=4)[1]
    again = train_from(NET, NET.start(0), PROBLEM, training, seed=4)[1]
    other = train_from(NET, NET.start(0), PROBLEM, training, seed=5)[1]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_ends_where_the_loss_is_not_finite():
    bad = {n: p * 1e30 for n, p in NET.start().items()}
    _, losses = train_from(NET, bad, PROBLEM, NetworkTraining(5))
    assert losses.isnan().all()


def test_measures_do_not_depend_on_how_a_split_is_cut():
    start = NET.start()
    whole, cut = (measure(NET, start, PROBLEM, "test", batch_size=b) for b in (1000, 64))
    assert whole.accuracy == pytest.approx(cut.accuracy)
    assert whole.loss == pytest.approx(cut.loss, rel=1e-5)
    some = measure(NET, start, PROBLEM, "test", samples=10)
    images, labels = PROBLEM.batch("test", torch.arange(10))
    hits = (call(NET, start, images).argmax(1) == labels).float().mean()
    assert some.accuracy == pytest.approx(float(hits))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 5))
def test_orthogonal_starts_keep_their_norm(rows, columns, seed):
    random = torch.Generator().manual_seed(seed)
    kernel = torch.randn(rows, columns, 3, 3, generator=random)
    same = {f"{i}.weight": torch.randn(rows, columns, generator=random) for i in range(2)}
    start = {**same, "conv.weight": kernel, "bias": torch.ones(rows)}
    made = prepare_start(start, orthogonal=True)
    assert torch.equal(made["bias"], start["bias"])
    for name in ("0.weight", "1.weight", "conv.weight"):
        assert made[name].shape == start[name].shape
        matrix = made[name].flatten(1)
        assert torch.allclose(matrix.norm(), start[name].norm(), rtol=1e-4)
        small = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        expected = torch.eye(len(small)) * matrix.norm() ** 2 / len(small)
        assert torch.allclose(small, expected, atol=1e-3)


def test_noise_is_a_share_of_each_matrix():
    start = {"a": torch.randn(60, 60), "b": 10 * torch.randn(60, 60), "bias": torch.randn(60)}
    made = prepare_start(start, noise=0.1)
    for name in ("a", "b"):
        share = (made[name] - start[name]).std() / start[name].std()
        assert 0.08 < share < 0.12
    assert torch.equal(made["bias"], start["bias"])
    assert torch.equal(made["a"], prepare_start(start, noise=0.1)["a"])
    assert not torch.equal(made["a"], prepare_start(start, noise=0.1, seed=1)["a"])
    same = prepare_start(start)
    assert all(torch.equal(same[n], start[n]) for n in start)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam"}, "adamw"),
        ({"lr": 0.0}, "lr"),
        ({"steps": -1}, "steps"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        NetworkTraining(**options)


def test_negative_noise_is_refused():
    with pytest.raises(UsageError, match="noise"):
        prepare_start(NET.start(), noise=-1)
