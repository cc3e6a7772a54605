"""Demonstrations that contradict each other are expected to win less."""

from __future__ import annotations

import copy

import pytest
import text_run
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen.conditions import Condition, DemoEncoder, FusedEncoder, HashingEncoder
from hypergen.errors import ConditionError, UsageError
from hypergen.evaluation import fit_demo_gain, measure_demo_gain
from hypergen.evaluation.demo_gain import DAMAGES, damaged
from hypergen.generators import GainHead, Generator, TransformerGenerator
from hypergen.generators.gain import points

PAIRS = st.lists(st.tuples(st.text("abcd", min_size=1), st.sampled_from(["x", "y", "z"])),
                 min_size=2, max_size=8)  # fmt: skip


@settings(max_examples=30)
@given(PAIRS, st.integers(0, 3))
def test_damage_keeps_what_it_does_not_touch(demos, seed):
    assert damaged(demos, "none", seed) == demos
    shuffled = damaged(demos, "shuffled", seed)
    assert sorted(given for given, _ in shuffled) == sorted(given for given, _ in demos)
    assert sorted(out for _, out in shuffled) == sorted(out for _, out in demos)
    both = damaged(demos, "contradictory", seed)
    assert len(both) == len(demos)
    if len({out for _, out in demos}) > 1:
        assert both[0][0] == both[1][0]
        assert both[0][1] != both[1][1]
    assert damaged(demos, "shuffled", seed) == shuffled


def test_another_damage_is_told():
    with pytest.raises(UsageError, match=r"no damage 'shufled'\. Did you mean 'shuffled'"):
        damaged([("a", "b")], "shufled")
    assert damaged([("a", "b")], "contradictory") == [("a", "b")]


# -- tasks that name kinds of things, and gains that fall with the damage -------------------------

KINDS = ("red", "blue", "wooden", "paper", "iron", "glass", "woollen", "old")
WORDS = ("cup", "hat", "bed", "car", "pen", "box")


def conditions() -> tuple[Condition, torch.Tensor, list[str]]:
    """Sound and damaged demonstrations of eight tasks, read together."""
    rows, tasks, hows = [], [], []
    for task, kind in enumerate(KINDS):
        other = KINDS[(task + 3) % len(KINDS)]
        sound = [(f"the {kind} {word}", f"yes {kind}") for word in WORDS[:3]]
        sound += [(f"some {other} {word}", f"no {other}") for word in WORDS[3:]]
        for how in DAMAGES:
            rows.append(damaged(sound, how, task))
            tasks.append(task)
            hows.append(how)
    torch.manual_seed(0)
    made = DemoEncoder(HashingEncoder(256), 32)
    with torch.no_grad():
        return made(rows), torch.tensor(tasks), hows


def test_a_head_that_reads_the_signals_learns_it_for_other_tasks():
    condition, tasks, hows = conditions()
    sound = torch.tensor([how == "none" for how in hows])
    noise = 0.05 * torch.randn(len(tasks), generator=torch.Generator().manual_seed(0))
    gains = torch.where(sound, 0.3, 0.05) + noise
    train = tasks < 6
    expected = {}
    for name, signals in (("signals", 4), ("pooled alone", 0)):
        read = points(condition[train.nonzero()[:, 0]], signals)
        head = GainHead(32, len(read), signals)
        head.fit(read, gains[train], tasks[train])
        expected[name] = head(condition)[~train]
        if signals:
            assert float(head.precision) > 0
    rest = sound[~train]
    own = expected["signals"].view(2, 3)
    assert bool((own[:, 0] > own[:, 1:].amax(1)).all())  # in each task that was not fitted on
    apart = {n: float(e[rest].mean() - e[~rest].mean()) for n, e in expected.items()}
    assert apart["signals"] > 0.05
    # The mean of the pairs shows less of it.
    assert apart["signals"] > apart["pooled alone"]


def test_signals_that_say_nothing_are_not_read():
    condition, tasks, _ = conditions()
    gains = torch.randn(8, generator=torch.Generator().manual_seed(1))[tasks]
    head = GainHead(32, len(tasks), 4)
    head.fit(points(condition, 4), gains, torch.arange(len(tasks)))
    assert float(head.precision) <= 4.0
    with pytest.raises(ConditionError, match="reads 4 signals; the condition has 0"):
        head(Condition.from_tokens(condition.tokens))
    assert GainHead(**head.config()).state_dict().keys() == head.state_dict().keys()
    assert GainHead(32, 3).config() == {"dim": 32, "size": 3}


# -- on a language model of a few thousand weights ------------------------------------------------


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    made = text_run.make(tmp_path_factory.mktemp("text"))
    torch.manual_seed(0)
    words = HashingEncoder(32)
    encoder = FusedEncoder({"text": words, "demos": DemoEncoder(words, 12)}, 12)
    made.generator = TransformerGenerator(made.spec, encoder, dim=8, depth=1, heads=2).eval()
    for parameter in made.generator.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    return made


def test_gains_are_measured_on_what_was_given(text):
    found = measure_demo_gain(text.generator, text.target, text.suite, [1, 2], (2, 4), draws=1)
    assert found.tasks.tolist() == [1] * 6 + [2] * 6
    assert found.condition.signals.shape == (12, 4)
    conflict = found.condition.signals[:, 0].view(4, 3)
    assert bool((conflict[:, 2] > conflict[:, 0] + 0.2).all())  # contradictory, as they are
    weights = text.generator.generate(condition=found.condition[5])
    own = text.suite.score(text.target, weights, torch.tensor([1]), "test", torch.tensor([0]))
    assert float(found.gain[5] + found.base[5]) == pytest.approx(float(own))


def test_the_head_is_fitted_and_saved_with_the_generator(text, tmp_path):
    generator = copy.deepcopy(text.generator)
    fit = fit_demo_gain(generator, text.target, text.suite, [1, 2, 3], (3,), draws=1)
    assert (fit.conditions, fit.tasks) == (9, 3)
    again = Generator.from_pretrained(generator.save_pretrained(tmp_path / "generator"))
    demos = [("cat", "animal"), ("cup", "thing")]
    for inputs in ({"demos": demos}, {"text": "say it"}, {"text": "say it", "demos": demos}):
        one, other = (g.generate(**inputs).expected_gain for g in (generator, again))
        assert torch.equal(one, other)
    with pytest.raises(UsageError, match="at least two different validation tasks"):
        fit_demo_gain(generator, text.target, text.suite, [1], (3,), draws=1)
