"""The rules, one after the other, on made-up numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hypergen.evaluation.audit.frontier import Dominated
from hypergen.evaluation.audit.geometry import Geometry
from hypergen.evaluation.audit.overlap import Overlap
from hypergen.evaluation.audit.resample import NOTHING, Estimate
from hypergen.evaluation.audit.verdict import Quality, judge


def near(value, by=0.02):
    return Estimate(value, value - by, value + by)


NEW = Geometry(
    space="plain",
    scale=1.0,
    ratio=near(1.0),
    ratio_heldout=near(1.0),
    copy_test=near(0.5, 0.1),
    copy_p=0.5,
    data_copying=near(0.5, 0.1),
    copy_rate=near(0.05, 0.05),
    copy_threshold=0.9,
    affine=near(1.0),
    convex=near(1.0),
    residuals={},
    coverage=near(1.0),
    coverage_share={},
    diversity=near(1.0),
    novelty={},
    nearest={},
    duplicates=0,
    shared=0,
    leaked=0,
)
GOOD = Quality(median=0.95, low=0.9, floor=0.3, name="accuracy")


def overlap(excess):
    return Overlap(near(0.3), near(0.3), excess, 1.0, [], {})


def dominated(share, heldout=0.05):
    mask = torch.zeros(1, dtype=torch.bool)
    return Dominated(near(share), near(heldout), {"average": share, "noise_1": 0.0}, mask)


NO_EXCESS = near(0.0)


def verdict(quality=GOOD, share=0.1, excess=NO_EXCESS, canonical=None, **changes):
    spaces = {"plain": replace(NEW, **changes)}
    if canonical is not None:
        spaces["canonical"] = replace(NEW, space="canonical", **canonical)
    return judge(spaces, {"plain": dominated(share)}, overlap(excess), quality)


CLOSE = {"ratio": near(0.2), "data_copying": near(0.95)}


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("new", {}),
        ("copies", CLOSE),
        ("copies", {"ratio": near(0.2), "copy_test": near(0.9), "copy_p": 0.001}),
        ("copies", {"canonical": CLOSE}),
        # Nearer than half of the way, as held-out networks are in this zoo: no copies.
        ("near", {"ratio": near(0.2)}),
        # Interval of R reaches one half.
        ("near", {"ratio": near(0.49), "data_copying": near(0.95)}),
        ("copies", {"ratio": near(0.47), "data_copying": near(0.95)}),
        ("inside", {"convex": near(0.3)}),
        ("near", {"convex": near(0.6), "ratio": near(0.8)}),
        ("new", {"convex": NOTHING, "affine": NOTHING}),
        ("inside", {"share": 0.6}),
        ("new", {"share": 0.45}),
        ("broken", {"quality": replace(GOOD, median=0.2)}),
        ("broken", {"quality": replace(GOOD, median=float("nan"))}),
        ("new", {"quality": replace(GOOD, median=0.5)}),
        ("new", {"quality": None}),
        ("near", {"ratio": near(0.9)}),
        ("new", {"ratio": near(0.97)}),  # significant, and too little to matter
        ("new", {"ratio": near(0.9, 0.2)}),  # much, and not significant
        ("near", {"copy_test": near(0.8), "copy_p": 0.001}),
        ("new", {"copy_test": near(0.8), "copy_p": 0.02}),
        ("near", {"excess": near(0.1)}),
        ("new", {"excess": near(0.03)}),
        ("new", {"excess": NOTHING}),
        # Copies that do not work are copies, mixtures that do not are mixtures.
        ("copies", {"quality": replace(GOOD, median=0.1), **CLOSE}),
        ("inside", {"quality": replace(GOOD, median=0.1), "convex": near(0.1)}),
    ],
)
def test_each_rule(kind, given):
    found = verdict(**given)
    assert found.kind == kind, found.sentence
    assert "nan" not in found.sentence
    assert not found.sentence.endswith(".")


def test_half_dominated_as_real_networks_are_says_nothing():
    spaces = {"plain": NEW}
    assert judge(spaces, {"plain": dominated(0.6, 0.6)}, None, GOOD).kind == "new"


def test_domination_counts_with_units_matched_where_that_is_known():
    shares = {"plain": dominated(0.9), "canonical": dominated(0.1), "behaviour": dominated(0.9)}
    assert judge({"plain": NEW}, shares, None, GOOD).kind == "new"
    del shares["canonical"]
    assert judge({"plain": NEW}, shares, None, GOOD).kind == "inside"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (CLOSE, "noisy copies: the typical sample is 20% as far"),
        ({**CLOSE, "ratio": near(0.001, 0)}, "these are copies: the typical sample is 0.1% as far"),
        ({"share": 0.6}, "60% of the samples are matched or beaten"),
        ({"share": 0.6}, "held-out networks: 5%; most often by 'average'"),
        ({"convex": near(0.3)}, "averages or interpolations, inside what noise and averaging give"),
        ({"convex": near(0.3)}, "leave 30% of the residual"),
        ({"ratio": near(0.9)}, "R is 0.90 (0.88 to 0.92)"),
        ({"excess": near(0.1)}, "overlap with a training network's by 0.100 more"),
        ({"quality": replace(GOOD, median=0.2)}, "their median accuracy is 0.2"),
        (
            {"quality": replace(GOOD, median=0.5)},
            "worse than real ones: their median accuracy is 0.5",
        ),
        (
            {"share": 0.6, "quality": replace(GOOD, median=0.5)},
            "of the held-out networks reach 0.9",
        ),
        ({"diversity": near(0.1)}, "they are alike: 10% as far apart as training runs are"),
        ({}, "90% lie outside what noise and averaging give (held-out networks: 95%)"),
    ],
)
def test_the_sentence_holds_the_numbers_that_decided(given, words):
    assert words in verdict(**given).sentence
