"""Meta-batches of architectures: reproducible, within budget, over workers and processes."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from hypergen.conditions.graph import trace
from hypergen.errors import UsageError
from hypergen.training.architectures import (
    ImageArchitectures,
    TextArchitectures,
    graph_of,
)
from hypergen.zoo.architectures import ArchitectureSpace, count_parameters

SPACE = ArchitectureSpace(
    {"cells": 1.0, "resnet": 1.0, "vit": 1.0, "mlp": 1.0}, (4, 8), (1, 2), max_parameters=20_000
)


def data(**options):
    given = {"space": SPACE, "meta_batch": 3, "batch_size": 8, "epoch": 4, "eval_samples": 50}
    return ImageArchitectures("digits", **{**given, **options})


def take(loader, count):
    found = []
    while len(found) < count:
        found += list(loader)
    return found[:count]


def same(a, b):
    return a.architectures == b.architectures and torch.equal(a.inputs, b.inputs)


def test_a_batch_is_a_function_of_seed_and_number():
    first, again = (take(data().train_dataloader(), 6) for _ in range(2))
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert len({tuple(b.architectures) for b in first}) == 6
    other = take(data(seed=1).train_dataloader(), 1)
    assert not same(first[0], other[0])
    resumed = data().train_dataloader()
    resumed.load_state_dict({"position": 4})
    assert same(next(iter(resumed)), first[4])


def test_graphs_are_those_of_the_architectures():
    batch = take(data().train_dataloader(), 1)[0]
    assert len(batch) == 3
    for one, graph in zip(batch.architectures, batch.graphs, strict=True):
        assert graph.hash == trace(one.module(), (2, 1, 8, 8), cache=False).hash
        assert graph_of(one) is graph
    moved = batch.to(torch.device("cpu"), non_blocking=True)
    assert same(moved, batch)
    assert torch.equal(moved.targets, batch.targets)


def test_workers_give_the_same_in_turn(monkeypatch):
    expected = [data().stream().meta_batch(number) for number in range(2, 8)]
    parts = []
    for worker in range(3):
        info = SimpleNamespace(id=worker, num_workers=3)
        monkeypatch.setattr(
            "hypergen.training.architecture_stream.get_worker_info", lambda info=info: info
        )
        stream = iter(copy.deepcopy(data().stream(first=2)))
        parts.append([next(stream), next(stream)])
    got = [parts[i % 3][i // 3] for i in range(6)]
    for ours, theirs in zip(got, expected, strict=True):
        assert [a for a, _ in ours] == [a for a, _ in theirs]
        assert [g.hash for _, g in ours] == [g.hash for _, g in theirs]


def test_processes_share_a_meta_batch():
    whole = data(meta_batch=4).stream().meta_batch(3)
    parts = []
    for rank in range(2):
        own = data(meta_batch=4)
        own.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        parts.append(own.stream().meta_batch(3))
    assert [a for a, _ in parts[0]] + [a for a, _ in parts[1]] == [
        whole[i][0] for i in (0, 2, 1, 3)
    ]
    own = data(meta_batch=3)
    own.trainer = SimpleNamespace(global_rank=0, world_size=2)
    with pytest.raises(UsageError, match="multiple of 2"):
        own.stream()


def test_budgets_leave_out_what_does_not_fit_and_never_all():
    free = data(meta_batch=6).stream()
    for options in ({"max_nodes": 120}, {"max_parameters": 15_000}, {"max_nodes": 1}):
        tight = data(meta_batch=6, **options).stream()
        left_out = 0
        for number in range(6):
            pairs, every = tight.meta_batch(number), free.meta_batch(number)
            assert pairs == every[: len(pairs)]
            assert pairs
            left_out += len(every) - len(pairs)
            if len(pairs) > 1:
                nodes = sum(len(graph) for _, graph in pairs)
                parameters = sum(count_parameters(a.meta()) for a, _ in pairs)
                assert nodes <= options.get("max_nodes", nodes)
                assert parameters <= options.get("max_parameters", parameters)
        assert left_out


def test_a_pool_is_all_there_is():
    stream = data(pool=5).stream()
    seen = {a for number in range(12) for a, _ in stream.meta_batch(number)}
    assert seen <= {SPACE.draw(stream.signature, "train", i) for i in range(5)}
    assert len(seen) > 3


def test_what_is_validated_and_tested_was_not_trained_on():
    own = data(val_architectures=3, test_architectures=2)
    trained = {a for b in take(own.train_dataloader(), 20) for a in b.architectures}
    validation = list(own.val_dataloader())
    assert [len(b) for b in validation] == [1, 1, 1]
    assert all(len(b.inputs) == 50 for b in validation)
    tests = list(own.test_dataloader())
    assert [b.name for b in tests] == [
        n for n in ("", "wide", "deep", "dense", "norm_free") for _ in range(2)
    ]
    assert not trained & {b.architectures[0] for b in [*validation, *tests]}


def test_text_for_language_models(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("to be or not to be, that is the question. " * 40)
    space = ArchitectureSpace({"gpt": 1.0, "llama": 1.0}, (4, 8), (1, 2))
    own = TextArchitectures(str(path), context=8, space=space, meta_batch=2, batch_size=3)
    batch = take(own.train_dataloader(), 1)[0]
    assert batch.inputs.shape == batch.targets.shape == (3, 8)
    assert {a.group for a in batch.architectures} == {"language models"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"meta_batch": 0}, "meta_batch"),
        ({"pool": 2}, "pool=2"),
        ({"workers": -1}, "workers"),
        ({"max_nodes": 0}, "max_nodes"),
        ({"space": ArchitectureSpace({"gpt": 1.0})}, "no family for images"),
    ],
)
def test_settings_that_make_no_sense_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        data(**options)
