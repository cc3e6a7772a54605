from __future__ import annotations

import pytest
import torch

import hypergen
from hypergen.conditions import NoCondition
from hypergen.errors import UsageError
from hypergen.generators import MLPGenerator
from hypergen.specs import FullSpec
from hypergen.training import GeneratorModule, ZooDataModule, fit
from hypergen.training.loggers import quiet
from hypergen.training.zoo_rows import concerns
from hypergen.zoo.canonical import augment
from hypergen.zoo.networks import MLP
from hypergen.zoo.store import Architecture, Block, Header, Row, Task, ZooWriter

SPEC = FullSpec(torch.nn.Linear(4, 3))
WORDS = ["red", "green", "blue", "black", "white"]
SHAPES = ["cat", "dog", "fish", "bird"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights that are a function of the words of their task, plus a little noise by seed."""
    path = tmp_path_factory.mktemp("zoos") / "zoo"
    generator = torch.Generator().manual_seed(0)
    parts = {word: torch.randn(SPEC.numel, generator=generator) for word in WORDS + SHAPES}
    tasks, rows, weights = {}, [], []
    for word in WORDS:
        for shape in SHAPES:
            name = f"{word}-{shape}"
            tasks[name] = Task((f"Find the {word} {shape}.", f"Is there a {shape}? It is {word}."))
            for seed in range(2):
                for step in (1, 2):
                    accuracy = 0.5 + 0.2 * step + 0.01 * seed
                    metrics = {"test": {"accuracy": accuracy}}
                    rows.append(Row(f"{name}-{seed}", step, "net", name, seed, {}, metrics))
                    noise = 0.01 * torch.randn(SPEC.numel, generator=generator)
                    weights.append(step * (parts[word] + parts[shape]) + noise)
    tasks["silent"] = Task()
    rows.append(Row("silent", 2, "net", "silent"))
    weights.append(torch.zeros(SPEC.numel))
    header = Header("words", tasks=tasks, architectures={"net": Architecture(SPEC)})
    with ZooWriter(path, header) as writer:
        writer.append([Block("net", torch.stack(weights), rows)])
    return str(path)


def test_splits_share_no_task_and_keep_the_last_step(folder):
    splits = ZooDataModule(folder, "hashing").splits
    tasks = {name: {row.task for row in view.rows} for name, view in splits.items()}
    assert {name: len(names) for name, names in tasks.items()} == {"train": 16, "val": 2, "test": 2}
    assert not tasks["train"] & (tasks["val"] | tasks["test"])
    assert {row.step for row in splits["train"].rows} == {2}
    assert all("silent" not in names for names in tasks.values())  # it cannot be a condition


def test_a_batch_is_a_function_of_seed_and_number(folder):
    first, again = (ZooDataModule(folder, "hashing", batch_size=8) for _ in range(2))
    ours, theirs = iter(first.train_dataloader()), iter(again.train_dataloader())
    for _ in range(3):
        a, b = next(ours), next(theirs)
        assert torch.equal(a["weights"], b["weights"])
        assert torch.equal(a["condition"].tokens, b["condition"].tokens)
    other = next(iter(ZooDataModule(folder, "hashing", batch_size=8, seed=1).train_dataloader()))
    assert other["weights"].shape == (8, SPEC.numel)
    assert not torch.equal(other["weights"], a["weights"])


def test_each_row_has_the_condition_of_its_task(folder):
    data = ZooDataModule(folder, "hashing", batch_size=16)
    zoo = data.splits["train"]
    batch = next(iter(data.train_dataloader()))
    flat = zoo.flat()
    for weights, row in zip(batch["weights"], batch["gather"], strict=True):
        task = zoo.rows[int((flat == weights).all(1).nonzero())].task
        allowed = data.encoder(list(zoo.tasks[task].descriptions)).pooled
        assert (allowed == batch["condition"].pooled[row]).all(1).any()


def test_filtering_and_drawing_by_metric(folder):
    with pytest.warns(UserWarning, match="look better on the test samples"):
        data = ZooDataModule(
            folder, "hashing", step="all", metric="test.accuracy", at_least=0.8, temperature=1e-3
        )
    assert data.splits["train"].metric("test", "accuracy").min() >= 0.8
    assert data.splits["val"].metric("test", "accuracy").min() < 0.8
    zoo, batch = data.splits["train"], next(iter(data.train_dataloader()))
    best = zoo.flat(zoo.metric("test", "accuracy") > 0.905)
    assert all((best == weights).all(1).any() for weights in batch["weights"])


def test_it_trains_a_generator_that_beats_the_mean(folder, tmp_path):
    data = ZooDataModule(folder, "hashing", batch_size=16)
    torch.manual_seed(0)
    generator = MLPGenerator(data.spec, data.encoder, hidden=64, depth=1, input_encoding="none")
    module = GeneratorModule(generator, "reconstruction", lr=3e-3)
    trainer = fit(module, data, tmp_path / "run", max_steps=300, val_every=300)
    with quiet():
        (result,) = trainer.test(module, datamodule=data, verbose=False)
    loaded = hypergen.load(tmp_path / "run")
    zoo = data.splits["test"]
    made = loaded.generate(text=[zoo.tasks[row.task].descriptions[0] for row in zoo.rows])
    wanted, mean = zoo.flat(), data.splits["train"].flat().mean(0)
    error, base = (made.flat() - wanted).square().mean(), (mean - wanted).square().mean()
    assert error < 0.8 * base
    assert result["test/loss"] > 0
    assert data.mean.allclose(mean, atol=1e-6)


def test_what_does_not_fit_says_so(folder):
    with pytest.raises(UsageError, match="batch_size must be positive"):
        ZooDataModule(folder, batch_size=0)
    with pytest.raises(UsageError, match="need metric="):
        ZooDataModule(folder, at_least=0.5)
    with pytest.raises(UsageError, match="keys train, val and test"):
        ZooDataModule(folder, fractions={"train": 1.0})
    with pytest.raises(UsageError, match="neither text nor hashing"):
        _ = ZooDataModule(folder, "words").encoder
    with pytest.raises(UsageError, match="needs a target, which ZooDataModule does not have"):
        GeneratorModule(torch.nn.Identity(), "task").connect(ZooDataModule(folder, "hashing"))
    with pytest.raises(UsageError, match="no checkpoint whose task has a description"):
        _ = ZooDataModule(folder, "hashing", step=7).splits


# -- without descriptions, in one order or any -------------------------------------------------

NETWORK = MLP(inputs=3, hidden=(4,), outputs=2)


@pytest.fixture(scope="module")
def permuted(tmp_path_factory):
    """Sixty runs of one small network, each with its hidden units in another order."""
    path = tmp_path_factory.mktemp("zoos") / "permuted"
    spec, draw = NETWORK.spec(), torch.Generator().manual_seed(0)
    flat = torch.randn(spec.numel, generator=draw)
    rows = augment(flat.repeat(60, 1), NETWORK.symmetry(), seed=1)
    rows = rows + 1e-3 * torch.randn(rows.shape, generator=draw)
    header = Header("permuted", architectures={"net": Architecture(spec, NETWORK.to_dict())})
    with ZooWriter(path, header) as writer:
        writer.append([Block("net", rows, [Row(f"run-{i}", 0, "net") for i in range(60)])])
    return str(path)


def unconditional(path, **options) -> ZooDataModule:
    options = {"batch_size": 16, "split_by": "run", **options}
    return ZooDataModule(path, "none", **options)


def test_without_conditions_no_description_is_needed(permuted, folder):
    data = unconditional(permuted)
    batch = next(iter(data.train_dataloader()))
    assert isinstance(data.encoder, NoCondition)
    assert batch["weights"].shape == (16, data.spec.numel)
    assert len(batch["condition"]) == 1
    assert batch["gather"].tolist() == [0] * 16
    assert [b["split"] for b in data.val_dataloader()] == ["val"]
    # Checkpoints of tasks without a description are used too.
    assert "silent" in {r.task for view in unconditional(folder).splits.values() for r in view.rows}
    with pytest.raises(UsageError, match="told apart by descriptions"):
        data.experts()


def test_canonical_networks_have_one_order(permuted):
    data = unconditional(permuted, canonical=True)
    batch = next(iter(data.train_dataloader()))["weights"]
    assert float(batch.std(0).max()) < 0.01
    plain = next(iter(unconditional(permuted).train_dataloader()))["weights"]
    assert float(plain.std(0).max()) > 0.1
    assert torch.allclose(batch.sort(1).values, plain.sort(1).values)  # numbers are moved only
    held = next(iter(data.val_dataloader()))["weights"]  # validation follows the same reference
    assert torch.allclose(held.mean(0), batch.mean(0), atol=0.01)
    assert torch.allclose(data.mean, data.rows.flat("train").mean(0))
    assert float(data.std.max()) < 0.01


def test_augmented_networks_are_permuted_anew_for_every_draw(permuted):
    data = unconditional(permuted, augment=True)
    first, second = (b["weights"] for b, _ in zip(data.train_dataloader(), range(2), strict=False))
    again = next(iter(unconditional(permuted, augment=True).train_dataloader()))["weights"]
    assert torch.equal(first, again)
    zoo = data.splits["train"].flat()
    assert not (first[:, None] == zoo[None]).all(-1).any(1).all()
    inputs = torch.randn(5, 3)
    call = lambda rows: functional(NETWORK, rows, inputs)  # noqa: E731
    made, stored = call(torch.cat([first, second])).flatten(1), call(zoo).flatten(1)
    distance = (made[:, None] - stored).abs().amax(-1)
    assert float(distance.min(1).values.max()) < 1e-5  # functions of the zoo, all of them
    held = next(iter(data.val_dataloader()))["weights"]
    assert torch.equal(held, data.splits["val"].flat())


def functional(network, rows, inputs):
    module, spec = network.module(), network.spec()
    call = lambda named: torch.func.functional_call(module, named, (inputs,))  # noqa: E731
    return torch.func.vmap(call)(spec.unpack(rows))


def test_small_zoos_and_duplicates_are_named_with_numbers(permuted):
    data = unconditional(permuted)
    with pytest.warns(UserWarning, match=r"48 independent training runs .* fewer than 50"):
        data.training_weights()
    data.training_weights()  # said once
    zoo = data.splits["train"]
    flat = zoo.flat()
    assert concerns(zoo, flat)[1:] == []
    flat[3] = flat[5]
    assert "1 of 48 training checkpoints are bit for bit equal" in concerns(zoo, flat)[1]


def test_options_that_contradict_each_other(permuted, folder):
    with pytest.raises(UsageError, match="choose one"):
        _ = unconditional(permuted, canonical=True, augment=True).rows
    with pytest.raises(UsageError, match="split by 'run'"):
        _ = unconditional(permuted, split_by="task").splits
    with pytest.raises(UsageError, match="symmetry of an architecture without description"):
        _ = unconditional(folder, canonical=True).rows
