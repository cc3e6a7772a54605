from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reading_zoo import MLP_SPEC, plain_rows, seeded_flip, write_rows
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from hypergen.errors import SpecError, UsageError, WeightsError
from hypergen.specs import FullSpec, TokenLayout
from hypergen.zoo.reading import Normalizer, ZooDataset
from hypergen.zoo.store import Row, Zoo


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("zoo") / "zoo", plain_rows())


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_a_batch_holds_rows_tasks_and_metrics(zoo):
    dataset = ZooDataset(zoo)
    batch = dataset.batch([4, 0, 17, -1])
    assert torch.equal(batch["weights"], zoo.flat()[[4, 0, 17, 17]])
    assert batch["row"].tolist() == [4, 0, 17, 17]
    assert [dataset.tasks[i] for i in batch["task"]] == [zoo.rows[i].task for i in (4, 0, 17, 17)]
    assert batch["metrics"]["test.accuracy"][0] == zoo.rows[4].metrics["test"]["accuracy"]
    assert equal(dataset[4], {**dataset[4], "weights": zoo.flat()[4]})
    assert all(
        equal(dataset[i], s) for i, s in zip([4, 0], dataset.__getitems__([4, 0]), strict=True)
    )
    assert equal(dataset[[4, 0]], dataset.batch([4, 0]))
    with pytest.raises(IndexError):
        dataset[18]


def test_named_slots_equal_those_of_the_zoo(zoo):
    everything = ZooDataset(zoo, "slots").batch([3, 1])["weights"]
    assert set(everything) == set(MLP_SPEC.names)
    some = ZooDataset(zoo, "slots", slots=["2.bias", "0.bias"]).batch([3, 1])["weights"]
    for weights in (everything, some):
        for name, tensor in weights.items():
            assert torch.equal(tensor, zoo.slot(name, [3, 1]))
    assert list(some) == ["2.bias", "0.bias"]


@given(
    st.sampled_from(["flat", "slot", "channel"]),
    st.integers(1, 9),
    st.integers(1, 12),
    st.lists(st.integers(0, 17), min_size=1, max_size=5),
    st.booleans(),
    st.booleans(),
)
def test_random_windows_equal_slices_of_the_whole(zoo, by, size, window, rows, scaled, augmented):
    layout = TokenLayout(zoo.spec, size, by)
    window = min(window, len(layout))
    normalizer = Normalizer.fit(zoo) if scaled else None
    augment = seeded_flip if augmented else None
    options = {"layout": layout, "normalizer": normalizer, "augment": augment, "seed": 3}
    batch = ZooDataset(zoo, "tokens", window=window, **options).batch(rows)
    whole = ZooDataset(zoo, "tokens", **options).batch(rows)
    if not (scaled or augmented):
        assert torch.equal(whole["weights"], zoo.tokens(layout, rows))
    for i in range(len(rows)):
        positions = layout.positions.tolist()
        start = positions.index(batch["positions"][i, 0].tolist())
        for key in ("weights", "mask", "positions"):
            assert torch.equal(batch[key][i], whole[key][i, start : start + window])


def test_random_starts_reach_every_place_and_change_by_epoch_and_seed(zoo):
    layout = TokenLayout(zoo.spec, 5, "flat")
    dataset = ZooDataset(zoo, "tokens", layout=layout, window=len(layout) - 2)

    def draw(epoch, source=dataset):
        source.set_epoch(epoch)
        return source.batch(range(18))["positions"][:, 0].tolist()

    draws = [draw(epoch) for epoch in range(4)]
    starts = {tuple(position) for epoch in draws for position in epoch}
    assert starts == {tuple(position) for position in layout.positions[:3].tolist()}
    assert draw(0) == draws[0]
    assert draws[0] != draws[1]
    other = ZooDataset(zoo, "tokens", layout=layout, window=len(layout) - 2, seed=1)
    assert draw(0, other) != draws[0]


@pytest.mark.parametrize("stride", [None, 2])
def test_sliding_windows_cover_every_token(zoo, stride):
    layout = TokenLayout(zoo.spec, 3)
    dataset = ZooDataset(zoo, "tokens", layout=layout, window=4, starts="sliding", stride=stride)
    batch = dataset.batch(range(len(dataset)))
    assert len(dataset) % len(zoo) == 0
    for row in range(len(zoo)):
        seen = batch["positions"][batch["row"] == row].flatten(0, 1)
        assert len(seen.unique(dim=0)) == len(layout)


def test_normalised_rows_are_those_of_the_normaliser(zoo):
    normalizer = Normalizer.fit(zoo)
    batch = ZooDataset(zoo, normalizer=normalizer).batch([2, 5])
    assert torch.equal(batch["weights"], normalizer.encode(zoo.flat([2, 5])))
    slots = ZooDataset(zoo, "slots", slots=["2.weight"], normalizer=normalizer).batch([2, 5])
    expected = zoo.spec.unpack(batch["weights"])["2.weight"]
    assert torch.allclose(slots["weights"]["2.weight"], expected)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_give_the_same_batches_as_none(zoo, method, monkeypatch):
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)  # a spawned worker imports the augmentation
    dataset = ZooDataset(
        zoo,
        "tokens",
        layout=TokenLayout(zoo.spec, 4),
        window=3,
        normalizer=Normalizer.fit(zoo),
        augment=seeded_flip,
    )
    plain = DataLoader(dataset, batch_size=5)
    sampler = BatchSampler(SequentialSampler(dataset), 5, drop_last=False)
    whole = DataLoader(dataset, sampler=sampler, batch_size=None)
    spread = DataLoader(
        dataset,
        batch_size=5,
        num_workers=2,
        multiprocessing_context=method,
        persistent_workers=True,
    )
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        for a, b, c in zip(plain, whole, spread, strict=True):
            assert equal(a, b)
            assert equal(a, c)


def test_batches_do_not_change_a_sample(zoo):
    dataset = ZooDataset(zoo, augment=seeded_flip)
    one, many = dataset[7], dataset.batch([3, 7, 11])
    assert torch.equal(one["weights"], many["weights"][1])
    assert not torch.equal(one["weights"], zoo.flat([7])[0])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"form": "rows"}, UsageError, "flat, slots or tokens"),
        ({"form": "tokens"}, UsageError, "layout"),
        ({"window": 2}, UsageError, "layout"),
        ({"slots": ["0.bias"]}, UsageError, "form='slots'"),
        ({"form": "slots", "slots": ["0.bais"]}, SpecError, "Did you mean"),
        ({"form": "tokens", "layout": TokenLayout(MLP_SPEC, 4), "window": 99}, UsageError, "1 to"),
        ({"form": "tokens", "layout": TokenLayout(MLP_SPEC, 4), "stride": 2}, UsageError, "stride"),
        ({"metrics": ["test.loss"]}, UsageError, "test.loss"),
    ],
)
def test_contradictions_are_refused(zoo, options, error, words):
    with pytest.raises(error, match=words):
        ZooDataset(zoo, **options)


def test_another_spec_is_refused(zoo):
    other = FullSpec(nn.Linear(2, 2))
    with pytest.raises(WeightsError, match="layout"):
        ZooDataset(zoo, "tokens", layout=TokenLayout(other, 2))
    ones = torch.ones(other.numel)
    with pytest.raises(WeightsError, match="normalizer"):
        ZooDataset(zoo, normalizer=Normalizer(other, ones, ones))


READ_ONE = """
import resource, sys
import torch
from hypergen.specs import TokenLayout
from hypergen.zoo.reading import ZooDataset
from hypergen.zoo.store import Zoo
zoo = Zoo(sys.argv[1], verify="never")
dataset = ZooDataset(zoo, "tokens", layout=TokenLayout(zoo.spec, 64), window=4)
dataset.batch([0])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset.batch([5]), ZooDataset(zoo).batch([9])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_one_sample_does_not_read_the_rest(tmp_path):
    spec = FullSpec(nn.Linear(1023, 512))  # 2 MB
    rows = [Row(f"run{i}", 0, "net") for i in range(32)]
    weights = torch.zeros(32, spec.numel)
    folder = write_rows(tmp_path / "zoo", rows, weights, spec=spec, parts=1).folder
    done = subprocess.run(
        [sys.executable, "-c", READ_ONE, str(folder)], capture_output=True, text=True, check=True
    )
    grown = int(done.stdout) * (1 if sys.platform == "darwin" else 1024)
    size = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors"))
    assert size > 64 << 20
    assert grown < 16 << 20
    assert len(Zoo(folder, verify="never")) == 32
