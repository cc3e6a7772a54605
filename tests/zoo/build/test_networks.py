"""Zoos of small networks: tasks, hyperparameters, widths and checkpoints of every run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from zoo_recipes import tiny_file

import hypergen
from hypergen._utils.errors import UsageError
from hypergen.zoo.build import NetworkZoo, read_recipe
from hypergen.zoo.ensemble import Classification, Digits
from hypergen.zoo.networks import MLP


@pytest.fixture
def tiny(tmp_path):
    return read_recipe(tiny_file(tmp_path))


def subsets(**changes) -> NetworkZoo:
    problem = Classification(Digits(), labels="subsets", n_tasks=3)
    settings = {"runs": 7, "steps": 4, "runs_per_job": 4, "evaluation_samples": 50, **changes}
    return NetworkZoo("subsets", MLP(64, (4,), 2), problem, **settings)


def test_the_header_says_everything(tiny):
    header = tiny.header()
    assert (header.name, header.licence, header.parts) == ("tiny", "CC0-1.0", tiny.jobs())
    assert set(header.architectures) == {"mlp-5", "mlp-6"}
    assert header.architectures["mlp-5"].config["init_args"]["hidden"] == [5]
    assert len(header.tasks["classes"].descriptions) >= 2
    assert header.provenance["recipe"] == tiny.to_dict()
    assert header.provenance["hypergen"] == hypergen.__version__
    assert header.provenance["data"]["class_path"] == "Digits"


def test_every_run_is_trained_once_and_is_its_own(tiny):
    members = [tiny.member(run) for run in range(tiny.runs)]
    assert len({m.seed for m in members}) == len({m.lr for m in members}) == tiny.runs
    assert {m.network.hidden for m in members} == {(5,), (6,)}
    assert members == [replace(tiny, runs=100).member(run) for run in range(tiny.runs)]
    assert members[0] != replace(tiny, seed=1).member(0)
    rows = [row for job in range(tiny.jobs()) for block in tiny.run(job) for row in block.rows]
    assert sorted({row.run for row in rows}) == [f"run-{i:06d}" for i in range(tiny.runs)]
    assert len(rows) == 3 * tiny.runs
    assert sum(map(tiny.models, range(tiny.jobs()))) == tiny.runs


def test_rows_and_weights_belong_together(tiny):
    from hypergen.zoo.ensemble.train import train_ensemble

    header = tiny.header()
    for job in range(tiny.jobs()):
        for block in tiny.run(job):
            architecture = header.architectures[block.architecture]
            assert block.weights.shape == (len(block.rows), architecture.spec.numel)
            assert [row.step for row in block.rows] == [0, 3, 6] * (len(block.rows) // 3)
            row = block.rows[-1]
            member = tiny.member(int(row.run.removeprefix("run-")))
            assert (row.seed, row.hyperparameters["lr"]) == (member.seed, member.lr)
            alone = train_ensemble(
                member.network,
                [member],
                tiny.problem,
                steps=6,
                batch_size=8,
                evaluation_samples=50,
            )
            assert torch.allclose(block.weights[-1], alone.weights[-1, 0], atol=1e-5)
            for split in ("train", "val", "test"):
                for name in ("loss", "accuracy"):
                    value = float(alone.metrics[split][name][-1, 0])
                    assert row.metrics[split][name] == pytest.approx(value, abs=1e-4)


def test_tasks_have_equally_many_runs():
    recipe = subsets()
    names = list(recipe.header().tasks)
    rows = [row for job in range(recipe.jobs()) for block in recipe.run(job) for row in block.rows]
    assert len(names) == 3
    assert [row.task for row in sorted(rows, key=lambda row: row.run)] == (names * 3)[:7]
    assert {row.step for row in rows} == {4}  # only the last when nothing is asked for


def test_a_job_says_how_far_it_is(tiny):
    steps = []
    tiny.run(0, steps.append)
    assert steps[-1] == tiny.steps
    assert steps == sorted(steps)


def test_a_network_that_does_not_fit_the_problem():
    with pytest.raises(UsageError, match="MLP has outputs=3, the problem needs outputs=2"):
        replace(subsets(), network=MLP(64, (4,), 3)).header()


def test_runs_share_their_start_when_asked():
    own, shared = (subsets(save_steps=(0,), shared_start=s) for s in (False, True))
    (first,), (second,) = own.run(0), shared.run(0)
    assert len(first.weights.unique(dim=0)) == len(first.weights) > 1
    assert len(second.weights.unique(dim=0)) == 1
    assert [row.seed for row in first.rows] == [row.seed for row in second.rows]
