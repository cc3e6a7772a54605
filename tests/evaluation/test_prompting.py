"""Wanted metric values against observed ones, and one update against training."""

from __future__ import annotations

import json

import pytest
import torch

from hypergen.errors import UsageError
from hypergen.evaluation.prompting import _closeness, evaluate_prompting, wanted_values
from hypergen.evaluation.prompting_result import Update, _worth
from hypergen.zoo.build.build import build_zoo
from hypergen.zoo.build.networks import NetworkZoo
from hypergen.zoo.ensemble import Classification, Digits
from hypergen.zoo.networks import MLP
from hypergen.zoo.store import Zoo

STEPS = (0, 10, 40, 120)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    recipe = NetworkZoo(
        name="digits",
        network=MLP(64, (8,), 10),
        problem=Classification(Digits()),
        runs=6,
        steps=120,
        save_steps=STEPS,
        lr=1e-2,
    )
    folder = tmp_path_factory.mktemp("zoos") / "zoo"
    build_zoo(recipe, folder)
    return Zoo(folder)


class FromTheRun:
    """Puts out the checkpoint of the same run whose value is nearest: the best there can be."""

    def __init__(self, zoo):
        self.flat, self.runs = zoo.flat(), zoo.column("run")
        self.values = torch.from_numpy(zoo.metric("train", "loss")).float().log()
        self.spec = zoo.spec
        self.calls = []

    def prompt(self, weights, current, wanted, *, seed=0, recursive=1, measure=None):
        self.calls.append((current.clone(), wanted.clone()))
        out = []
        for row, goal in zip(weights, wanted, strict=True):
            run = self.runs[int((self.flat - row).square().sum(1).argmin())]
            own = [i for i, name in enumerate(self.runs) if name == run]
            out.append(own[int((self.values[own] - goal.log()).abs().argmin())])
        return self.spec.from_flat(self.flat[out])


class Unmoved:
    """Puts out what it was given."""

    def __init__(self, zoo):
        self.spec = zoo.spec

    def prompt(self, weights, current, wanted, **_):
        return self.spec.from_flat(weights)


@pytest.fixture(scope="module")
def parts(zoo):
    runs = sorted(set(zoo.column("run")))
    return zoo.select(run=runs[:4]), zoo.select(run=runs[4:])


@pytest.fixture(scope="module")
def found(zoo, parts):
    oracle = FromTheRun(zoo)
    result = evaluate_prompting(
        oracle, *parts, "train.loss", prompts=6, recursive=2, steps=(1, 20, 80), resamples=50
    )
    return result, oracle


def test_the_first_checkpoints_are_prompted_with_their_own_values(found, parts):
    result, oracle = found
    start = parts[1].select(step=0)
    expected = torch.from_numpy(start.metric("train", "loss")).float()
    torch.testing.assert_close(result.current, expected)
    now, goal = oracle.calls[0]
    torch.testing.assert_close(now, expected)
    assert (goal == result.wanted[0]).all()


def test_an_oracle_does_as_the_runs_own_checkpoints(found):
    result, _ = found
    torch.testing.assert_close(
        result.observed["generated"], result.observed["own"], rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(
        result.alignment("generated"), result.alignment("own"), atol=1e-3, rtol=0
    )
    assert (result.alignment("own") > 0.5).all()
    assert (result.alignment("current") < 0.01).all()
    assert (result.alignment("mean") < result.alignment("own")).all()


def test_closeness_tells_updates_from_copies(found):
    result, _ = found
    close = result.closeness
    assert close["to_own_last"].max() < 1e-3
    assert (close["to_training"] > 1).all()
    assert close["cosine"].min() > 0.999


def test_a_copy_lies_at_no_distance():
    train = 3 + torch.randn(40, 500)
    close = _closeness(train[5:35], train[:30], train[10:], train)
    assert close["to_training"].eq(0).all()


def test_one_update_is_compared_with_training(found):
    result, _ = found
    update = result.update
    assert update.trained.shape == (2, 3)
    assert (update.trained[:, 2] < update.trained[:, 0]).all()
    told = result.to_dict()["update"]
    # The oracle took the run's last checkpoint, after 120 steps.
    assert told["worth_in_steps"]["more_than"] >= 20


def test_prompts_follow_one_another(found):
    result, oracle = found
    assert result.recursive.shape == (2, 3)
    torch.testing.assert_close(result.recursive[:, 0], result.current)
    # The value that the second prompt calls current is the one that the first reached.
    torch.testing.assert_close(oracle.calls[-1][0], result.recursive[:, 1])


def test_doing_nothing_is_not_aligned(zoo, parts):
    result = evaluate_prompting(
        Unmoved(zoo), *parts, "train.loss", prompts=5, recursive=1, steps=(), resamples=20
    )
    assert (result.alignment() < 0.01).all()
    assert result.update is None
    assert result.recursive is None
    assert float(result.closeness["to_current"].max()) == 0


def test_high_values_can_be_good(zoo, parts):
    result = evaluate_prompting(
        Unmoved(zoo), *parts, "val.accuracy", log=False, prompts=4, steps=(40,), resamples=20
    )
    assert result.good == "high"
    assert float(result.wanted[0]) < float(result.wanted[-1])
    assert (result.update.matched("high") == 40).all()  # any training is better than none


def test_numbers_table_and_picture(found, tmp_path):
    result, _ = found
    told = json.loads(json.dumps(result.to_dict()))
    assert told["wanted"] == pytest.approx(result.wanted.tolist())
    low, high = told["alignment"]["generated"]["ci"]
    assert low <= told["alignment"]["generated"]["mean"] <= high
    text = result.to_table()
    assert "2 held-out runs, 6 wanted values of train.loss" in text
    assert "one generated update" in text
    paths = result.save(tmp_path / "report")
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_leaks_are_refused(zoo, parts):
    with pytest.raises(UsageError, match="test split"):
        evaluate_prompting(Unmoved(zoo), *parts, "test.loss")
    with pytest.raises(UsageError, match="is in training too"):
        evaluate_prompting(Unmoved(zoo), parts[0], parts[0], "train.loss")
    with pytest.raises(UsageError, match="two checkpoints"):
        evaluate_prompting(Unmoved(zoo), parts[0], parts[1].select(step=0), "train.loss")


def test_wanted_values_span_the_training_set():
    known = torch.logspace(-3, 0, 101)
    values = wanted_values(torch.cat([known, torch.tensor([float("nan")])]), 4, log=True)
    ratio = values[1:] / values[:-1]
    torch.testing.assert_close(ratio, ratio[:1].expand(3), rtol=1e-3, atol=0)
    assert 1e-3 < float(values[0]) < float(values[-1]) < 1


def test_matched_steps():
    update = Update([1, 10, 100], torch.tensor([[3.0, 2, 1], [3, 2, 1]]), torch.tensor([2.0, 0.5]))
    found = update.matched("low")
    assert float(found[0]) == 10
    assert found[1].isnan()


def test_what_an_update_is_worth_is_bracketed():
    worth = {}
    for value in (9.0, 1.5, 0.1):
        update = Update([1, 10, 100], torch.tensor([[3.0, 2, 1]]), torch.tensor([value]))
        worth[value] = _worth(update, "low")
    assert worth[9.0] == {"more_than": 0, "at_most": 1}
    assert worth[1.5] == {"more_than": 10, "at_most": 100}
    assert worth[0.1] == {"more_than": 100, "at_most": None}
