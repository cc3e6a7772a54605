"""Pairs of checkpoints of one run."""

from __future__ import annotations

import pytest
import torch

from hypergen.errors import UsageError
from hypergen.training.zoo_pairs import ZooPairsDataModule
from hypergen.zoo.networks import MLP
from hypergen.zoo.store import Architecture, Block, Header, Row, ZooWriter

NETWORK = MLP(inputs=3, hidden=(5, 4), outputs=2)
SPEC = NETWORK.spec()
RUNS, STEPS = 10, (0, 5, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("zoos") / "zoo"
    generator = torch.Generator().manual_seed(0)
    rows, weights = [], []
    for run in range(RUNS):
        start = torch.randn(SPEC.numel, generator=generator)
        for step in STEPS:
            loss = 1 / (1 + step) + 0.01 * run
            metrics = {"val": {"loss": loss}, "test": {"loss": 2 * loss}}
            rows.append(Row(f"r{run}", step, "net", seed=run, metrics=metrics))
            weights.append(start * (1 + 0.01 * step))
    rows.append(Row("alone", 0, "net", metrics={"val": {"loss": 1.0}}))
    weights.append(torch.zeros(SPEC.numel))
    header = Header("pairs", architectures={"net": Architecture(SPEC, NETWORK.to_dict())})
    with ZooWriter(path, header) as writer:
        writer.append([Block("net", torch.stack(weights), rows)])
    return str(path)


def run_and_place(data, flat, split="train"):
    """Run and number of the checkpoint that a stored row of weights is."""
    zoo = data.splits[split]
    at = int((zoo.flat() == flat).all(1).nonzero())
    return zoo.rows[at].run, zoo.rows[at].step, zoo.rows[at].metrics["val"]["loss"]


def test_splits_share_no_run_and_lone_checkpoints_are_left_out(folder):
    splits = ZooPairsDataModule(folder).splits
    runs = {name: {row.run for row in view.rows} for name, view in splits.items()}
    assert {name: len(r) for name, r in runs.items()} == {"train": 8, "val": 1, "test": 1}
    assert not runs["train"] & runs["val"] | runs["test"] & runs["val"]
    assert "alone" not in set.union(*runs.values())


@pytest.mark.parametrize("pairs", ["later", "any"])
def test_a_pair_is_of_one_run_with_its_own_values(folder, pairs):
    data = ZooPairsDataModule(folder, pairs=pairs, permute=False, batch_size=32)
    batch = next(iter(data.train_dataloader()))
    later = 0
    for b in range(32):
        run, step, loss = run_and_place(data, batch["raw"]["weights"][b])
        other, target, wanted = run_and_place(data, batch["weights"][b])
        assert run == other
        assert step != target
        assert batch["raw"]["metric"][b].tolist() == pytest.approx([loss, wanted])
        later += target > step
    assert later == 32 if pairs == "later" else 8 < later < 24


def test_both_are_permuted_alike_and_their_functions_stay(folder):
    plain = ZooPairsDataModule(folder, permute=False, batch_size=16)
    data = ZooPairsDataModule(folder, batch_size=16)
    stored, moved = next(iter(plain.train_dataloader())), next(iter(data.train_dataloader()))
    current, target = stored["raw"]["weights"], stored["weights"]
    assert not torch.equal(moved["raw"]["weights"], current)
    x = torch.randn(7, 3)
    module = NETWORK.module()
    for before, after in ((current, moved["raw"]["weights"]), (target, moved["weights"])):
        for b in range(16):
            outputs = [
                torch.func.functional_call(module, SPEC.unpack(flat[b]), (x,))
                for flat in (before, after)
            ]
            torch.testing.assert_close(*outputs)
    # One permutation for both: the target is still a multiple of the current checkpoint.
    factor = target[:, :1] / current[:, :1]
    torch.testing.assert_close(moved["weights"], moved["raw"]["weights"] * factor)


def test_a_batch_is_a_function_of_seed_and_number(folder):
    first, again = (ZooPairsDataModule(folder, batch_size=8) for _ in range(2))
    ours, theirs = iter(first.train_dataloader()), iter(again.train_dataloader())
    for _ in range(2):
        a, b = next(ours), next(theirs)
        assert torch.equal(a["weights"], b["weights"])
        assert torch.equal(a["raw"]["weights"], b["raw"]["weights"])
    other = next(iter(ZooPairsDataModule(folder, batch_size=8, seed=1).train_dataloader()))
    assert not torch.equal(other["weights"], a["weights"])


def test_validation_has_every_pair_once_as_it_is_stored(folder):
    data = ZooPairsDataModule(folder, batch_size=2)
    batches = list(data.val_dataloader())
    assert [len(b["weights"]) for b in batches] == [2, 1]
    steps = set()
    for batch in batches:
        for a, b in zip(batch["raw"]["weights"], batch["weights"], strict=True):
            steps.add((run_and_place(data, a, "val")[1], run_and_place(data, b, "val")[1]))
    assert steps == {(0, 5), (0, 20), (5, 20)}


def test_the_encoder_knows_the_training_split(folder):
    data = ZooPairsDataModule(folder, size=8, dim=16)
    encoder = data.encoder
    assert encoder.input_names == ("metric", "weights")
    metric, weights = encoder.encoders["metric"], encoder.encoders["weights"]
    assert metric.log
    assert bool(metric.statistics.fitted)
    assert weights.std.sub(1).abs().gt(1e-3).any()
    batch = next(iter(data.train_dataloader()))
    condition = encoder(batch["raw"])
    assert condition.tokens.shape == (64, 4, 16)
    assert torch.equal(condition.weights, batch["raw"]["weights"])


def test_small_zoos_are_warned_of(folder):
    data = ZooPairsDataModule(folder)
    with pytest.warns(UserWarning, match="8 independent training runs"):
        assert data.training_weights().shape == (24, SPEC.numel)


def test_bad_settings_are_told(folder):
    with pytest.raises(UsageError, match="leak through the prompt"):
        ZooPairsDataModule(folder, metric="test.loss")
    with pytest.raises(UsageError, match="'later' or 'any'"):
        ZooPairsDataModule(folder, pairs="worse")
    with pytest.raises(UsageError, match="batch_size must be positive"):
        ZooPairsDataModule(folder, batch_size=0)
    with pytest.raises(UsageError, match="train, val and test"):
        ZooPairsDataModule(folder, fractions={"train": 1.0})
    with pytest.raises(UsageError, match="no checkpoint has the metric"):
        _ = ZooPairsDataModule(folder, metric="val.f1").splits
    data = ZooPairsDataModule(folder)
    data.needs = frozenset({"inputs"})
    with pytest.raises(UsageError, match="also needs inputs"):
        data.setup("fit")


def test_a_zoo_of_lone_checkpoints_is_refused(tmp_path):
    header = Header("lone", architectures={"net": Architecture(SPEC, NETWORK.to_dict())})
    rows = [Row(f"r{i}", 1, "net", metrics={"val": {"loss": 1.0}}) for i in range(4)]
    with ZooWriter(tmp_path / "zoo", header) as writer:
        writer.append([Block("net", torch.randn(4, SPEC.numel), rows)])
    with pytest.raises(UsageError, match="build the zoo with save_steps"):
        _ = ZooPairsDataModule(str(tmp_path / "zoo")).splits
