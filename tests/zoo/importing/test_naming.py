"""Runs, steps and seeds out of paths."""

from __future__ import annotations

import pytest

from hypergen.zoo.importing.naming import run_and_step, seed_of


@pytest.mark.parametrize(
    ("path", "run", "step"),
    [
        ("seed1/step-100", "seed1", 100),
        ("seed1/step_100", "seed1", 100),
        ("seed1/step-100/model", "seed1", 100),
        ("seed1/checkpoints/step=5", "seed1", 5),
        ("a/epoch=3-step=100", "a", 100),
        ("a/epoch=3", "a", 3),
        ("run/checkpoint-500", "run", 500),
        ("run/global_step12", "run", 12),
        ("a/small-step-5", "a/small", 5),
        ("a/lr=0.1-step=5", "a/lr=0.1", 5),
        ("a/model_iter_7", "a", 7),
        ("step-3", "home", 3),
        ("model", "home", 0),
        ("net", "net", 0),
        ("a/net", "a/net", 0),
        ("a/model", "a", 0),
        ("a/last", "a/last", 0),
        ("a/footstep9", "a/footstep9", 0),
        ("a/checkpoints", "a/checkpoints", 0),
        ("v1.2-step-4", "v1.2", 4),
    ],
)
def test_run_and_step_of_a_path(path, run, step):
    assert run_and_step(path, "home") == (run, step)


def test_a_step_that_the_file_tells_wins():
    assert run_and_step("a/checkpoints/epoch=1-step=9", "home", 10, True) == ("a", 10)
    assert run_and_step("a/best-val=0.3", "home", 10, True) == ("a", 10)
    assert run_and_step("best", "home", 10, True) == ("home", 10)


def test_a_seed_is_taken_where_there_is_one():
    assert seed_of("seed3/step-100") == 3
    assert seed_of("a/lr=0.1_seed=12") == 12
    assert seed_of("seed1/seed2") is None
    assert seed_of("seedling/birdseed7") is None
