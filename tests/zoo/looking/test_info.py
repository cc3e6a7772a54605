from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from looking_zoo import (
    LORA,
    NETWORK,
    SPEC,
    independent,
    rows_of,
    walk,
    walking_zoo,
    write,
)

from hypergen._utils.io import dump_json
from hypergen.errors import UsageError
from hypergen.zoo.canonical import random_index
from hypergen.zoo.looking import describe
from hypergen.zoo.looking.sample import choose
from hypergen.zoo.networks import MLP
from hypergen.zoo.store import Architecture, Block, Header, Zoo, ZooWriter


def test_numbers_equal_a_naive_computation(tmp_path):
    zoo = walking_zoo(tmp_path / "zoo")
    info = describe(zoo)
    found = info.architectures["net"]
    flat = zoo.flat().double()
    ends = [i for i, row in enumerate(zoo.rows) if row.step == 30]
    d = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    within = [
        min(float(d[i, j]) for j, b in enumerate(zoo.rows) if b.run == a.run and i != j)
        for i, a in enumerate(zoo.rows)
    ]
    between = [min(float(d[i, j]) for j in ends if j != i) for i in ends]
    assert found.within["median"] == pytest.approx(np.median(within), rel=1e-6)
    assert found.within["q95"] == pytest.approx(np.quantile(within, 0.95), rel=1e-6)
    assert found.between["median"] == pytest.approx(np.median(between), rel=1e-6)
    assert found.ratio == pytest.approx(np.median(between) / np.median(within), rel=1e-6)
    assert found.norm == pytest.approx(float(flat[ends].square().sum(1).mean().sqrt()), rel=1e-6)
    for slot in found.slot_norms:
        norms = zoo.slot(slot["slot"], ends).double().flatten(1).norm(dim=1)
        assert slot["mean"] == pytest.approx(float(norms.mean()))
        assert slot["sd"] == pytest.approx(float(norms.std(correction=0)))
    accuracy = [zoo.rows[i].metrics["test"]["accuracy"] for i in ends]
    assert info.metrics["test.accuracy"]["mean"] == pytest.approx(np.mean(accuracy))
    assert info.metrics["test.accuracy"]["sd"] == pytest.approx(np.std(accuracy))
    assert (info.checkpoints, info.runs, info.families) == (20, 5, 1)
    assert info.tasks == {"task0": 12, "task1": 8}
    assert info.steps == {"min": 0, "max": 30, "distinct": 4, "most_per_run": 4}
    assert info.hyperparameters["lr"]["max"] == pytest.approx(0.05)
    assert info.hyperparameters["optimizer"]["values"] == {'"adamw"': 20}


def test_one_run_is_not_diverse_and_independent_runs_are(tmp_path):
    rows = rows_of(1, 50)
    one = write(tmp_path / "one", [Block("net", walk(independent(1), 50, 0.001), rows)])
    found = describe(one).architectures["net"]
    assert found.diversity == "none"
    assert "the 50 checkpoints come from one run" in describe(one).verdict
    assert not found.between
    many = describe(walking_zoo(tmp_path / "many", runs=12)).architectures["net"]
    assert many.diversity == "high"
    assert "12 runs end in different places" in many.verdict


def test_runs_that_hardly_differ_are_called_so(tmp_path):
    starts = SPEC.initial(0) + 0.01 * torch.randn(6, SPEC.numel)
    zoo = write(tmp_path / "zoo", [Block("net", walk(starts, 2, 0.001), rows_of(6, 2))])
    assert describe(zoo).architectures["net"].diversity == "low"


def test_permuted_copies_are_seen_through(tmp_path):
    copies = SPEC.initial(0).expand(10, -1)
    copies = copies.gather(1, random_index(NETWORK.symmetry(), 10, seed=0))
    rows = rows_of(10, 1)
    known = write(tmp_path / "known", [Block("net", copies, rows)])
    found = describe(known).architectures["net"]
    assert found.between["median"] > 0.1 * found.norm
    assert found.aligned["max"] == 0
    assert found.diversity == "low"
    unknown = {"net": Architecture(SPEC, {})}
    found = describe(write(tmp_path / "unknown", [Block("net", copies, rows)], unknown))
    assert found.architectures["net"].aligned == {}


def test_alignment_never_makes_a_distance_larger(tmp_path):
    found = describe(walking_zoo(tmp_path / "zoo", runs=20)).architectures["net"]
    assert (found.points.aligned <= found.points.between * (1 + 1e-9)).all()


def test_loras_of_one_update_are_not_diverse(tmp_path):
    generator = torch.Generator().manual_seed(0)
    base = LORA.unpack(torch.randn(1, LORA.numel, generator=generator))
    rows, flat = rows_of(8, 1, "lora"), []
    for _ in rows:
        own = dict(base)
        for module in LORA.modules:
            a, b = LORA.pair_names(module)
            turn = torch.linalg.qr(torch.randn(2, 2, generator=generator)).Q
            own[a], own[b] = turn @ own[a], own[b] @ turn.T
        flat.append(LORA.pack(own)[0])
    zoo = write(
        tmp_path / "zoo",
        [Block("lora", torch.stack(flat), rows)],
        {"lora": Architecture(LORA, {"class": "PeftModel"})},
    )
    found = describe(zoo).architectures["lora"]
    assert found.compares == "updates"
    assert found.diversity == "low"
    assert "ΔW" in str(describe(zoo))


def test_the_nearest_run_tells_the_task(tmp_path):
    centres = 3 * torch.randn(2, SPEC.numel)
    starts = torch.stack([centres[i % 2] + 0.1 * torch.randn(SPEC.numel) for i in range(8)])
    zoo = write(tmp_path / "zoo", [Block("net", starts, rows_of(8, 1))])
    assert describe(zoo).architectures["net"].same_task == {
        "share": 1.0,
        "chance": pytest.approx(3 / 7),
    }


def test_quarantine_and_duplicates_are_counted(tmp_path):
    flat = walk(independent(4), 3, 0.1)
    flat[1, 0] = float("nan")
    flat[6, 0] = float("inf")
    flat[9] = flat[0]
    zoo = write(tmp_path / "zoo", [Block("net", flat, rows_of(4, 3))])
    info = describe(zoo)
    assert info.checkpoints == 10
    assert sum(info.quarantined.values()) == 2
    assert info.duplicates["count"] == 1
    assert info.duplicates["of_other_runs"] == 1
    text = str(info)
    assert "quarantined      2" in text
    assert "run 'net-run3', step 0 equals run 'net-run0', step 0" in text


def test_edges_one_checkpoint_none_and_no_metrics(tmp_path):
    single = write(tmp_path / "single", [Block("net", independent(1), rows_of(1, 1))])
    assert "single checkpoint" in describe(single).verdict
    header = Header("empty", architectures={"net": Architecture(SPEC)}, parts=3)
    with ZooWriter(tmp_path / "empty", header):
        pass
    empty = describe(Zoo(tmp_path / "empty"))
    assert empty.verdict == "The zoo holds no good checkpoint."
    assert "incomplete: 0 of 3 parts" in str(empty)
    bare = rows_of(3, 2, tasks=0, metrics=False)
    info = describe(write(tmp_path / "bare", [Block("net", walk(independent(3), 2, 0.1), bare)]))
    assert info.metrics == {}
    assert info.tasks == {}
    assert "metrics" not in str(info)
    zeros = write(tmp_path / "zeros", [Block("net", torch.zeros(4, SPEC.numel), rows_of(4, 1))])
    assert describe(zeros).architectures["net"].diversity == "low"


def test_several_architectures_are_looked_at_apart(tmp_path):
    wide = MLP(inputs=2, hidden=(3,), outputs=2)
    specs = {
        "net": Architecture(SPEC, NETWORK.to_dict()),
        "wide": Architecture(wide.spec(), wide.to_dict()),
    }
    blocks = [
        Block("net", independent(4), rows_of(4, 1)),
        Block("wide", independent(3, wide.spec()), rows_of(3, 1, "wide")),
    ]
    info = describe(write(tmp_path / "zoo", blocks, specs))
    assert {key: a.numel for key, a in info.architectures.items()} == {
        "net": SPEC.numel,
        "wide": wide.spec().numel,
    }
    assert info.verdict.startswith("net: diverse")
    assert " wide: " in info.verdict
    data = json.loads(dump_json(info.to_dict()))
    assert data["architectures"]["wide"]["config"] == wide.to_dict()


def test_large_zoos_are_sampled_the_same_way_each_time(tmp_path):
    zoo = walking_zoo(tmp_path / "zoo", runs=40, steps=5)
    chosen = choose(zoo, 40)
    assert chosen == choose(zoo, 40)
    assert chosen != choose(zoo, 40, seed=1)
    assert len(chosen) == 40
    order = np.random.default_rng(0).permutation(len(zoo))
    shuffled = zoo[order]
    assert {shuffled.rows[i].label for i in choose(shuffled, 40)} == {
        zoo.rows[i].label for i in chosen
    }
    # Ends of three quarters, and neighbours without gaps.
    rows = [zoo.rows[i] for i in chosen]
    assert sum(row.step == 40 for row in rows) == 30
    for run in {row.run for row in rows}:
        steps = [row.step for row in rows if row.run == run]
        assert steps == list(range(50 - 10 * len(steps), 50, 10))
    info = describe(zoo, limit=40)
    assert "a sample of 40 of 200 checkpoints from 30 of 40 runs (seed 0" in str(info)
    assert info.checkpoints == 200
    with pytest.raises(UsageError, match="at least 4"):
        describe(zoo, limit=3)


def test_one_long_run_is_sampled_along_its_end(tmp_path):
    zoo = write(tmp_path / "zoo", [Block("net", walk(independent(1), 60, 0.1), rows_of(1, 60))])
    assert choose(zoo, 20) == list(range(40, 60))
    assert describe(zoo, limit=20).architectures["net"].compared == 20


def test_a_view_is_described_like_a_zoo(tmp_path):
    zoo = walking_zoo(tmp_path / "zoo")
    info = describe(zoo.select(task="task1"))
    assert info.checkpoints == 8
    rows = [dataclasses.replace(row, metrics={"val": {"loss": 1.0}}) for row in zoo.rows]
    assert list(describe(zoo.relabel(rows)).metrics) == ["val.loss"]
