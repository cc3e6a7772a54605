"""The audit on samples of known origin: copies, noise, averages, and real new networks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from hypergen._utils.io import dump_json
from hypergen.errors import UsageError, WeightsError
from hypergen.evaluation.audit import Behaviour, Networks
from hypergen.evaluation.audit.baselines import memorise
from hypergen.zoo.canonical import augment, symmetry_of

COUNT = 24


def chosen(digits, seed=0, count=COUNT):
    generator = torch.Generator().manual_seed(seed)
    return digits.training.flat[torch.randperm(80, generator=generator)[:count]]


def noisy(digits, size, seed=0):
    generator = torch.Generator().manual_seed(seed + 1)
    flat = chosen(digits, seed)
    return flat + size * flat.std(0) * torch.randn(flat.shape, generator=generator)


def permuted(digits, flat):
    """Units in another order and at other scales: other weights, the same function."""
    spec = digits.zoo.spec
    out = spec.from_flat(augment(flat, symmetry_of(spec, digits.zoo.architecture.config), seed=3))
    named = {k: v.clone() for k, v in out.named().items()}
    factor = torch.linspace(0.5, 2, 8)
    named["0.weight"] *= factor[:, None]
    named["0.bias"] *= factor
    named["2.weight"] /= factor
    return torch.cat([named[slot.name].flatten(1) for slot in spec.slots], dim=1)


@pytest.fixture(scope="module")
def found(digits):
    """Origin → audit."""
    made = {}

    def mean_of(k):
        generator = torch.Generator().manual_seed(k)
        rows = torch.rand(COUNT, 80, generator=generator).argsort(1)[:, :k]
        return digits.training.flat[rows].mean(1)

    origins = {
        "copies": lambda: chosen(digits),
        "permuted": lambda: permuted(digits, chosen(digits)),
        "noise": lambda: noisy(digits, 0.05),
        "permuted noise": lambda: permuted(digits, noisy(digits, 0.05)),
        "much noise": lambda: noisy(digits, 0.8),
        "averages": lambda: mean_of(16),
        "pairs": lambda: mean_of(2),
        "memoriser": lambda: memorise(digits.zoo.spec, digits.training.flat, COUNT, 7),
        "unknown": lambda: digits.unknown.flat,
        "random": lambda: torch.randn(COUNT, digits.training.flat.shape[1]) * 2,
        "one": lambda: digits.unknown.flat[:1].repeat(COUNT, 1),
    }

    def get(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = digits.run(Networks.of(origins[name]()))
        return made[name]

    return get


@pytest.mark.parametrize(
    ("origin", "kind"),
    [
        ("copies", "copies"),
        ("permuted", "copies"),
        ("noise", "copies"),
        ("permuted noise", "copies"),
        ("memoriser", "copies"),
        ("much noise", "inside"),
        ("averages", "inside"),
        ("pairs", "inside"),
        ("unknown", "new"),
        ("random", "broken"),
    ],
)
def test_the_verdict_is_right(found, origin, kind):
    verdict = found(origin).verdict
    assert verdict.kind == kind, verdict.sentence
    opening = {
        "copies": ("these are copies", "these are noisy copies"),
        "inside": ("these are averages or interpolations, inside", "nothing is gained, inside"),
        "new": "new networks: R is",
        "broken": "these networks do not work",
    }[kind]
    assert verdict.sentence.startswith(opening)


def test_real_new_networks_raise_no_flag(found):
    flags = found("unknown").verdict.flags
    for name in ("copies", "copy_test", "convex_mixture", "dominated", "does_not_work", "alike"):
        assert not flags[name], name


def test_copies_are_found_at_no_distance(found):
    plain = found("copies").spaces["plain"]
    assert plain.ratio.high < 1e-6
    assert plain.data_copying.value == 1
    assert plain.copy_rate.value == 1
    assert plain.coverage.value > 1  # each its own, unlike held-out networks
    assert found("copies").overlap.samples.value == pytest.approx(1)
    assert found("copies").overlap.excess.low > 0
    assert found("memoriser").spaces["plain"].ratio.high < 0.01


def test_only_the_canonical_space_sees_permuted_copies(found):
    spaces = found("permuted").spaces
    assert spaces["plain"].ratio.low > 0.9
    assert spaces["canonical"].ratio.high < 1e-4
    assert found("permuted").overlap.excess.low > 0


def test_averages_are_convex_combinations(found):
    for origin in ("averages", "pairs", "copies"):
        plain = found(origin).spaces["plain"]
        assert plain.convex.high < 0.01, origin
        assert plain.affine.high < 0.01, origin
    unknown = found("unknown").spaces["plain"]
    assert 0.8 < unknown.convex.value < 1.25
    assert 0.8 < unknown.affine.value < 1.25


def test_one_network_again_and_again_is_said_to_be_alike(found):
    audit = found("one")
    assert audit.verdict.kind in ("new", "near")
    assert "they are alike: 0% as far apart as training runs are" in audit.verdict.sentence
    assert audit.verdict.flags["low_coverage"]


def test_baselines_dominate_copies_and_not_real_networks(found):
    assert found("copies").dominated["canonical"].samples.value > 0.6
    assert found("unknown").dominated["canonical"].samples.value < 0.3
    kinds = {cloud.kind for cloud in found("unknown").clouds}
    assert {
        "average",
        "interpolation",
        "gaussian",
        "merge",
        "minimiser",
        "average_canonical",
    } < kinds
    assert sum(kind.startswith("noise") for kind in kinds) >= 6


def test_equal_seeds_give_equal_results(digits, found):
    again = digits.run(Networks.of(digits.unknown.flat)).to_dict()
    first = found("unknown").to_dict()
    for told in (again, first):
        told.pop("seconds")
    assert dump_json(again, nonfinite="null") == dump_json(first, nonfinite="null")
    other = digits.run(Networks.of(digits.unknown.flat), seed=1)
    assert other.verdict.kind == "new"


def test_nothing_that_is_handed_in_is_changed(digits):
    parts = (digits.training, digits.heldout, digits.unknown)
    before = [part.flat.clone() for part in parts]
    digits.run(Networks.of(digits.unknown.flat))
    for flat, part in zip(before, parts, strict=True):
        assert torch.equal(flat, part.flat)


def test_the_result_is_json_and_a_table(found):
    audit = found("unknown")
    told = json.loads(dump_json(audit.to_dict(), nonfinite="null"))
    assert told["verdict"]["kind"] == "new"
    assert told["counts"] == {
        "samples": 24,
        "training": 80,
        "training_runs": 80,
        "training_of": 80,
        "heldout": 24,
        "heldout_runs": 24,
    }
    assert set(told["spaces"]) == {"plain", "canonical"}
    assert told["spaces"]["plain"]["ratio"]["ci95"][0] <= told["spaces"]["plain"]["ratio"]["value"]
    table = audit.to_table()
    for words in ("R, distance", "dominated by baselines", "perfect memoriser", "verdict: new"):
        assert words in table
    assert audit.to_short().splitlines()[-1] == table.splitlines()[-1]


def test_without_scores_only_weights_are_compared(digits):
    audit = digits.run(Networks.of(digits.unknown.flat), judge_by=None)
    assert audit.verdict.kind == "new"
    assert audit.overlap is None
    assert not audit.dominated
    assert "accuracy" not in audit.to_table()
    assert digits.run(Networks.of(chosen(digits)), judge_by=None).verdict.kind == "copies"


def test_nan_outputs_are_worse_than_any(digits):
    def score(flat, tasks, generated):
        found = digits.judge.score(flat, tasks, generated)
        quality = torch.full_like(found.quality, torch.nan) if generated else found.quality
        return Behaviour(quality, found.predictions, found.tasks)

    judge = replace(digits.judge, score=score, answers=None)
    audit = digits.run(Networks.of(digits.unknown.flat), judge_by=judge)
    assert audit.verdict.kind in ("broken", "inside")
    assert audit.verdict.flags["does_not_work"]

    def score_one(flat, tasks, generated):
        found = digits.judge.score(flat, tasks, generated)
        quality = found.quality.clone()
        quality[:1] = torch.nan if generated else quality[:1]
        return Behaviour(quality, found.predictions, found.tasks)

    judge = replace(digits.judge, score=score_one, answers=None)
    audit = digits.run(Networks.of(digits.unknown.flat), judge_by=judge)
    assert not audit.verdict.flags["does_not_work"]  # one of many


def test_without_a_description_there_is_one_space(digits):
    audit = digits.run(Networks.of(digits.unknown.flat), config=None)
    assert list(audit.spaces) == ["plain"]
    assert "units matched" not in audit.to_table()


def test_an_autoencoder_is_a_baseline(digits):
    audit = digits.run(Networks.of(digits.unknown.flat), reconstruct=lambda flat: flat * 0.9)
    cloud = next(c for c in audit.clouds if c.kind == "autoencoder")
    assert len(cloud.quality) == 8
    assert 0 < float(cloud.novelty["plain"].median()) < 0.5


def test_few_checkpoints_are_drawn_by_whole_runs(digits):
    audit = digits.run(Networks.of(digits.unknown.flat), checkpoints=50)
    assert audit.counts["training"] == 50
    assert audit.counts["training_of"] == 80
    assert "compared with 50 of 80 training checkpoints" in audit.to_table()


# -- bad input ---------------------------------------------------------------------------------


def test_small_zoos_are_refused_with_numbers(digits):
    from hypergen.evaluation.audit import audit

    few = digits.training[torch.arange(20)]
    one_run = Networks.of(few.flat, torch.zeros(20))
    samples = Networks.of(digits.unknown.flat)
    spec = digits.zoo.spec
    with pytest.raises(UsageError, match=r"training zoo has 20 checkpoints of 1 runs.*at least 8"):
        audit(spec, samples, one_run, digits.heldout)
    with pytest.raises(UsageError, match=r"held-out zoo has 3 checkpoints of 3 runs.*at least 4"):
        audit(spec, samples, digits.training, digits.heldout[torch.arange(3)])
    with pytest.raises(UsageError, match="5 samples are too few"):
        audit(spec, samples[torch.arange(5)], digits.training, digits.heldout)
    with pytest.raises(UsageError, match="share runs"):
        audit(spec, samples, digits.training, digits.training[torch.arange(9)])


def test_weights_that_do_not_fit_are_refused(digits):
    flat = digits.unknown.flat.clone()
    with pytest.raises(WeightsError, match="samples have 609 numbers each, the training networks"):
        digits.run(Networks.of(flat[:, 1:]))
    flat[4, 5] = torch.nan
    with pytest.raises(WeightsError, match=r"1 of 24 sample networks .*the first is number 4"):
        digits.run(Networks.of(flat))
    with pytest.raises(WeightsError, match=r"\[N\] runs and tasks"):
        Networks.of(flat, torch.zeros(3))


def test_duplicates_are_told_with_numbers(digits):
    from hypergen.evaluation.audit import audit

    samples = Networks.of(digits.unknown.flat)
    flat = digits.training.flat.clone()
    flat[:10] = flat[10:20]
    twice = Networks.of(flat, digits.training.groups)
    options = {"resamples": 20, "judge_by": None}
    found = audit(digits.zoo.spec, samples, twice, digits.heldout, **options)
    assert found.warnings() == ["20 of 80 training checkpoints equal one of another run"]
    flat[:40] = flat[40:]
    twice = Networks.of(flat, digits.training.groups)
    with pytest.raises(UsageError, match="80 of 80 training checkpoints equal one of another"):
        audit(digits.zoo.spec, samples, twice, digits.heldout, **options)
    shared = Networks.of(digits.training.flat[:24], digits.heldout.groups)
    found = audit(digits.zoo.spec, samples, digits.training, shared, **options)
    assert "24 of 24 held-out networks equal a training network" in found.to_table()
    seen = digits.run(Networks.of(digits.heldout.flat), judge_by=None, resamples=20)
    assert "24 of 24 samples equal a held-out network" in seen.to_table()
