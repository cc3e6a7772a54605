"""Samples of prompted changes, and zoos as generators saw them."""

from __future__ import annotations

import pytest
import torch

from hypergen.conditions import FusedEncoder, MetricEncoder, NoCondition, WeightsEncoder
from hypergen.evaluation.audit.sampling import Drawn, draw
from hypergen.evaluation.audit.sources import Options, audit_run, audit_samples
from hypergen.evaluation.audit.zoos import judge_of, networks_of
from hypergen.evaluation.networks import evaluate_networks, problem_of
from hypergen.generators import DiffusionGenerator
from hypergen.generators.diffusion import GPt
from hypergen.specs import TokenLayout
from hypergen.zoo import build_zoo, split
from hypergen.zoo.build import NetworkZoo
from hypergen.zoo.canonical import augment, canonicalize, pick_reference, symmetry_of
from hypergen.zoo.ensemble import Classification, Digits, ImageFit
from hypergen.zoo.networks import CNN, MLP, SIREN
from hypergen.zoo.reading.record import ZooRecord

QUICK = Options(resamples=20, baselines=4, limit=100)


class Rows:
    """Training checkpoints, for statistics alone."""

    def __init__(self, flat):
        self.flat = flat

    def training_weights(self):
        return self.flat


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Two checkpoints of each of 30 runs, cut by run."""
    recipe = NetworkZoo(
        "steps",
        MLP(64, (4,), 10),
        Classification(Digits()),
        runs=30,
        steps=40,
        save_steps=(2, 40),
        lr=1e-2,
    )
    zoo = build_zoo(recipe, tmp_path_factory.mktemp("steps") / "zoo", workers=1)
    return split(zoo, "run", {"train": 0.6, "val": 0.2, "test": 0.2}, 0)


def test_prompted_changes_start_from_validation_runs(steps):
    spec = steps["train"].spec
    weights = WeightsEncoder.from_layout(TokenLayout(spec, 64), dim=8, pool=True)
    metric = MetricEncoder(dim=8, log=True)
    metric.fit(torch.tensor([0.01, 3.0]))
    generator = GPt(
        spec,
        FusedEncoder({"weights": weights, "metric": metric}, dim=8),
        {"name": "TokenCodec", "size": 64, "normalize": "slot"},
        {"name": "DiT", "width": 16, "depth": 1, "heads": 2},
        {"name": "Diffusion", "prediction": "data", "steps": 2},
    )
    generator.prepare(Rows(steps["train"].flat()))
    record = ZooRecord("pairs", steps, {"metric": "val.loss", "log": True})
    drawn = draw(generator, record, 10)
    assert drawn.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert not drawn.conditional
    found = audit_run(generator, record, 10, options=QUICK)
    assert found.counts["heldout_runs"] == 6  # the test runs alone
    assert found.counts["training"] == 36


def test_a_generator_of_canonical_networks_is_compared_with_canonical_ones(steps):
    """Copies of what it saw are copies in plain distances too, whose units it never permuted."""
    train, held = steps["train"], [steps["val"], steps["test"]]
    view = train[:]
    flat = networks_of(view, problem_of(view)).flat
    symmetry = symmetry_of(train.spec, train.architecture.config)
    seen = canonicalize(flat, symmetry, flat[pick_reference(flat, symmetry)])
    drawn = Drawn(seen[:12], torch.arange(12))
    plain, canonical = (
        audit_samples(drawn, train, held, canonical=c, options=QUICK).spaces["plain"].ratio.value
        for c in (False, True)
    )
    assert canonical < 1e-5 < plain
    moved = Drawn(augment(seen[:12], symmetry, seed=1), torch.arange(12))
    found = audit_samples(moved, train, held, canonical=True, options=QUICK)
    assert found.spaces["canonical"].ratio.value < 1e-4
    assert found.verdict.kind == "copies"


def test_generated_batch_norm_statistics_are_re_estimated_and_stored_ones_are_not(tmp_path):
    recipe = NetworkZoo(
        "cnn",
        CNN((1, 8, 8), (4,), 10, norm="batch"),
        Classification(Digits()),
        runs=4,
        steps=80,
        lr=2e-2,
    )
    zoo = build_zoo(recipe, tmp_path / "zoo", workers=1)
    problem = problem_of(zoo)
    judge = judge_of(zoo, problem, limit=100)
    flat = 1.5 * zoo.flat()  # the statistics among these weights are not theirs
    for generated, batch_norm in ((True, "train"), (False, "stored")):
        expected = evaluate_networks(zoo, flat, batch_norm=batch_norm, limit=100)
        torch.testing.assert_close(judge.score(flat, None, generated).quality, expected.quality)
    stored = judge_of(zoo, problem, limit=100, batch_norm="stored").score(flat, None, True)
    assert not torch.equal(stored.quality, judge.score(flat, None, True).quality)
    assert judge.quality == "accuracy"


def test_networks_without_a_task_are_scored_on_the_one_that_they_do_best(tmp_path):
    recipe = NetworkZoo(
        "sets", MLP(64, (6,), 2), Classification(Digits(), [[1], [2, 3]]), runs=4, steps=60, lr=1e-2
    )
    zoo = build_zoo(recipe, tmp_path / "zoo", workers=1)
    problem = problem_of(zoo)
    judge, networks = judge_of(zoo, problem), networks_of(zoo, problem)
    free = judge.score(networks.flat, None, False)
    given = judge.score(networks.flat, networks.tasks, False)
    assert torch.equal(free.tasks, networks.tasks)
    torch.testing.assert_close(free.quality, given.quality)


def test_images_of_no_condition_have_no_score(tmp_path):
    recipe = NetworkZoo("images", SIREN(2, (6,), 1), ImageFit(Digits(), 30), runs=30, steps=5)
    zoo = build_zoo(recipe, tmp_path / "zoo", workers=1)
    views = split(zoo, "run", {"train": 0.6, "val": 0.2, "test": 0.2}, 0)
    train, held = views["train"], [views["val"]]
    drawn = Drawn(views["test"].flat(), torch.arange(len(views["test"])), [])
    drawn = Drawn(torch.cat([drawn.flat] * 2), torch.arange(2 * len(drawn.flat)))
    assert audit_samples(drawn, train, held, options=QUICK).quality == {}
    made = DiffusionGenerator(
        train.spec,
        NoCondition(),
        codec={"name": "TokenCodec", "size": 16},
        denoiser={"name": "MLPDenoiser", "hidden": 8},
        process={"name": "FlowMatching", "steps": 2},
    )
    made.prepare(Rows(train.flat()))
    found = audit_run(made, ZooRecord("none", views, {}), 9, options=QUICK)
    assert found.counts["samples"] == 9
    assert found.counts["heldout"] == len(views["val"]) + len(views["test"])
