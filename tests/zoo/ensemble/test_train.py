"""A stack's members are what each network would be if it were trained alone."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_stacks import Blobs, train_alone

from hypergen.errors import UsageError
from hypergen.zoo.ensemble import Classification, Digits, ImageFit, Member, train_ensemble
from hypergen.zoo.networks import CNN, MLP, SIREN, Network, ViT

CLASSES = Classification(Blobs())
SUBSETS = Classification(Blobs(), "subsets")
IMAGE = (1, 4, 4)


def stack(outputs: int = 3, **options: object) -> MLP:
    return MLP(inputs=16, hidden=(6, 5), outputs=outputs, **options)


NETWORKS = {
    "relu": (stack(), CLASSES),
    "tanh": (stack(activation="tanh"), CLASSES),
    "gelu": (stack(activation="gelu"), CLASSES),
    "silu": (stack(activation="silu"), CLASSES),
    "subsets": (stack(outputs=2), SUBSETS),
    "linear": (MLP(inputs=16, hidden=(), outputs=3), CLASSES),
    "siren": (SIREN(hidden=(6, 5), omega=5.0), ImageFit(Blobs(), 6)),
    "mlp-batch": (stack(norm="batch"), CLASSES),
    "mlp-elu": (stack(activation="elu"), CLASSES),
    "cnn-batch": (CNN(image=IMAGE, channels=(4, 5), outputs=3), CLASSES),
    "cnn-layer": (CNN(image=IMAGE, channels=(4, 5), outputs=3, norm="layer"), CLASSES),
    "cnn-residual": (CNN(image=IMAGE, channels=(4,), outputs=3, residual=True), CLASSES),
    "vit": (ViT(image=IMAGE, patch=2, dim=8, depth=1, heads=2, mlp=8, outputs=3), CLASSES),
}
# Biases before batch norm and of keys have gradients that are zero but for rounding, of which Adam
# makes whole steps.
ROUNDING = {("mlp-batch", "adamw"), ("vit", "adamw")}
WRITTEN_OUT = {"relu", "tanh", "gelu", "silu", "subsets", "linear", "siren"}


def members(problem, count: int = 5, decay: float = 0.3) -> list[Member]:
    tasks = len(problem.tasks)
    return [Member(i, i % tasks, 1e-3 * (i + 1), decay * i) for i in range(count)]


def run(network, everyone, problem, **options):
    settings = {"steps": 6, "batch_size": 16, "save_steps": (0, 3, 6), **options}
    return train_ensemble(network, everyone, problem, **settings)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [(n, o) for n in NETWORKS for o in ("adamw", "sgd") if (n, o) not in ROUNDING],
)
def test_each_member_equals_training_it_alone(name, optimizer):
    network, problem = NETWORKS[name]
    everyone = members(problem)
    done = run(network, everyone, problem, optimizer=optimizer, engine="auto")
    for i, member in enumerate(everyone):
        flat, module = train_alone(
            network,
            member,
            problem,
            steps=6,
            batch_size=16,
            optimizer=optimizer,
            schedule="cosine",
            flatten=isinstance(network, MLP),
        )
        torch.testing.assert_close(done.weights[-1, i], flat, rtol=1e-5, atol=2e-6)
        assert not torch.equal(done.weights[0, i], done.weights[1, i])
        split = problem.splits[-1]
        x = problem.inputs(split)
        with torch.no_grad():
            outputs = module(x.flatten(1) if isinstance(network, MLP) else x)
        index = torch.arange(len(x))[None]
        targets = problem.targets(split, torch.tensor([member.task]), index)[0]
        torch.testing.assert_close(
            done.metrics[split]["loss"][-1, i], problem.loss(outputs, targets), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("name", sorted(WRITTEN_OUT))
def test_the_engines_agree(name, optimizer):
    network, problem = NETWORKS[name]
    both = [
        run(network, members(problem), problem, optimizer=optimizer, engine=engine)
        for engine in ("mlp", "vmap")
    ]
    torch.testing.assert_close(both[0].weights, both[1].weights, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["relu", "cnn-batch"])
def test_the_same_call_gives_the_same_bytes(name):
    network, problem = NETWORKS[name]
    first, second = (run(network, members(problem), problem, tile=2) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    for split, metrics in first.metrics.items():
        for metric, values in metrics.items():
            assert torch.equal(values, second.metrics[split][metric])


@pytest.mark.parametrize("name", ["relu", "cnn-batch", "vit"])
def test_other_members_do_not_matter(name):
    network, problem = NETWORKS[name]
    everyone = members(problem, 7)
    whole = run(network, everyone, problem)
    tiled = run(network, everyone[::-1], problem, tile=3)
    # Processors add in different orders; after these steps that has grown to 2.4e-6 on one of them.
    torch.testing.assert_close(whole.weights, tiled.weights.flip(1), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("name", ["relu", "cnn-batch"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_member_that_diverges_disturbs_nobody(name, optimizer):
    network, problem = NETWORKS[name]
    good = members(problem)
    wild = Member(99, 0, 1e30)
    done = run(network, [*good[:2], wild, *good[2:]], problem, optimizer=optimizer)
    assert not done.weights[-1, 2].isfinite().all()
    others = done.weights[:, [0, 1, 3, 4, 5]]
    assert others.isfinite().all()
    alone = run(network, good, problem, optimizer=optimizer)
    torch.testing.assert_close(others, alone.weights, rtol=1e-5, atol=2e-6)


def test_it_learns():
    network, problem = NETWORKS["subsets"]
    done = run(network, members(problem, 12, 0.0), problem, steps=150, save_steps=(0, 150))
    accuracy = done.metrics["test"]["accuracy"]
    assert accuracy.shape == (2, 12)
    assert accuracy[1].mean() > 0.95 > accuracy[0].mean() + 0.2
    assert set(done.metrics) == {"train", "val", "test"}


def test_batches_may_be_larger_than_the_data():
    network, problem = NETWORKS["relu"]
    done = run(network, members(problem, 2), problem, steps=2, batch_size=150, save_steps=())
    assert done.steps == (2,)
    assert done.weights.isfinite().all()


@pytest.mark.parametrize("tile", [None, 2, 1])
def test_on_step_counts_to_the_number_of_steps(tile):
    network, problem = NETWORKS["relu"]
    seen: list[int] = []
    run(network, members(problem), problem, tile=tile, on_step=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0, "save_steps": ()}, "steps must be at least 1"),
        ({"save_steps": (7,)}, "between 0 and 6"),
        ({"batch_size": 0}, "batch_size"),
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"engine": "fast"}, "engine"),
        ({"splits": ("tset",)}, "Did you mean 'test'"),
        ({"tile": 0}, "tile"),
        ({"everyone": []}, "at least one member"),
        ({"everyone": [Member(0, 1, 0.1)]}, r"task 1, the problem has 0…0"),
        ({"network": MLP(inputs=15, hidden=(4,), outputs=3)}, "inputs, of shape"),
        ({"network": MLP(inputs=16, hidden=(4,), outputs=4)}, "4 outputs, the problem needs 3"),
        ({"network": stack(norm="batch"), "engine": "mlp"}, "engine 'mlp' cannot train"),
    ],
)
def test_bad_options_are_named(changes, message):
    options = {"network": stack(), "everyone": members(CLASSES), "problem": CLASSES, **changes}
    with pytest.raises(UsageError, match=message):
        run(**options)


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"lr": float("nan")}, {"weight_decay": -1.0}])
def test_bad_members_are_named(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        Member(0, 0, **{"lr": 0.1, **bad})


def test_a_member_is_json():
    member = Member(1, 2, 0.1, network=stack())
    assert Network.from_dict(json.loads(json.dumps(member.to_dict()))["network"]) == stack()
    assert Member(1, 2, 0.1).to_dict()["network"] is None


def test_adamw_without_the_bare_kernel_is_the_same(monkeypatch):
    from hypergen.zoo.ensemble import optimizers

    def train():
        members = [Member(i, 0, 1e-2, weight_decay=0.1 * i) for i in range(3)]
        return train_ensemble(MLP(), members, Classification(Digits()), steps=5, batch_size=8)

    bare = train()
    monkeypatch.setattr(optimizers, "_KERNEL", None)
    assert torch.equal(train().weights, bare.weights)
