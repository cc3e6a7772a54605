"""The expected gain: fitted on validation tasks, low for nonsense, saved with the generator."""

from __future__ import annotations

import copy

import pytest
import torch

from hypergen.errors import UsageError
from hypergen.evaluation import calibrate, fit_gain, measure_gain
from hypergen.generators import Generator

NONSENSE = [
    "fetch two bottles of milk tomorrow",
    "colourless ideas sleep furiously",
    "qwer asdf zxcv",
    "what does the train to Lisbon cost",
]


@pytest.fixture(scope="module")
def fitted(toy):
    generator = copy.deepcopy(toy.generator)
    tasks = toy.suite.task_splits["val"]
    fit = fit_gain(generator, toy.target, toy.suite, tasks, ["train", "heldout"], limit=None)
    return generator, fit


def test_gains_are_those_of_a_loop(toy):
    found = measure_gain(toy.generator, toy.target, toy.suite, [20, 3], "train", chunk=4)
    assert found.tasks.tolist() == [20] * 3 + [3] * 3
    texts = toy.suite.descriptions["train"][20] + toy.suite.descriptions["train"][3]
    for i, text in enumerate(texts):
        task = found.tasks[i : i + 1]
        own = toy.suite.score(toy.target, toy.generator.generate(text), task, "val")
        base = toy.suite.score(toy.target, toy.spec.neutral(), task, "val")
        assert float(found.gain[i]) == pytest.approx(float(own - base), abs=1e-6)
        assert float(found.base[i]) == pytest.approx(float(base))


def test_nonsense_is_expected_to_win_little(toy, fitted):
    generator, _ = fitted
    held = toy.suite.task_splits["heldout_tasks"]
    texts = [text for task in held for text in toy.suite.descriptions["train"][task]]
    expected = generator.generate(NONSENSE).expected_gain
    real = generator.generate(texts).expected_gain
    assert float(expected.abs().max()) < 0.1
    assert float(real.mean()) > 2 * float(expected.max())
    kept = generator.generate(NONSENSE, abstain_below=0.1)
    assert torch.equal(kept.flat(), generator.spec.neutral(len(NONSENSE)).flat())


def test_the_gain_says_something_about_other_tasks(toy, fitted):
    generator, fit = fitted
    assert fit.conditions == 30
    assert fit.tasks == 6
    held = measure_gain(
        generator,
        toy.target,
        toy.suite,
        toy.suite.task_splits["heldout_tasks"],
        ["train", "heldout"],
        samples="test",
    )
    found = calibrate(generator.gain(held.condition), held.gain, held.base)
    assert found.correlation > 0.2
    # Better than chance wherever the curve is cut: the area above the line from end to end.
    line = torch.linspace(float(found.score[0]), float(found.score[-1]), len(found.score))
    assert float((found.score - line).mean()) > 0


def test_the_head_is_saved_with_the_generator(fitted, tmp_path):
    generator, _ = fitted
    generator.save_pretrained(tmp_path / "generator")
    again = Generator.from_pretrained(tmp_path / "generator")
    texts = ["say yes to red", *NONSENSE]
    first, second = (g.generate(texts).expected_gain for g in (generator, again))
    assert torch.equal(first, second)


def test_large_sets_are_thinned_and_repeatable(toy):
    tasks = toy.suite.task_splits["val"]
    heads = []
    for seed in (0, 0, 1):
        generator = copy.deepcopy(toy.generator)
        fit = fit_gain(generator, toy.target, toy.suite, tasks, "train", most=10, seed=seed)
        assert fit.conditions == 10
        heads.append(generator.gain.state_dict())
    assert all(torch.equal(heads[0][k], heads[1][k]) for k in heads[0])
    assert not torch.equal(heads[0]["bank"], heads[2]["bank"])


def test_too_few_tasks_are_an_error(toy):
    generator = copy.deepcopy(toy.generator)
    with pytest.raises(UsageError, match="at least two different validation tasks"):
        fit_gain(generator, toy.target, toy.suite, [18], "train")
    with pytest.raises(UsageError, match="no description in the wordings 'given'"):
        fit_gain(generator, toy.target, toy.suite, [18, 19], "given")
