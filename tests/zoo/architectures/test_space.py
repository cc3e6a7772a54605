"""The space: reproducible, without overlap, and each split what its name says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen.conditions.graph import coverage, trace
from hypergen.errors import UsageError
from hypergen.zoo.architectures import (
    SPLITS,
    Architecture,
    ArchitectureSpace,
    CellNet,
    Signature,
    count_parameters,
)

IMAGES = Signature("images", (1, 8, 8), 10)
COLOURS = Signature("images", (3, 32, 32), 10)
TOKENS = Signature("tokens", (12,), 17)
FAMILIES = {"cells": 3.0, "resnet": 1.0, "convnext": 1.0, "vit": 1.0, "mlp": 1.0}
SPACE = ArchitectureSpace(FAMILIES, width=(4, 12), depth=(1, 3), max_parameters=40_000)
TEXT = ArchitectureSpace({"gpt": 1.0, "llama": 1.0}, width=(4, 16), depth=(1, 2))


def depth_of(a: Architecture) -> int:
    return a.cells if isinstance(a, CellNet) else len(a.hidden)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SPLITS))
def test_whatever_is_drawn_runs_is_traced_and_is_rebuilt_from_json(number, split):
    found = SPACE.draw(IMAGES, split, number)
    assert found == SPACE.draw(IMAGES, split, number)
    again = Architecture.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    assert hash(again) == hash(found)
    module = found.meta()
    graph = trace(module, IMAGES.example(), cache=False)
    assert coverage(module, graph=graph).complete
    assert graph.parameters.keys() == dict(module.named_parameters()).keys()
    out = found.module()(torch.randn(3, *IMAGES.shape))
    assert out.shape == (3, 10)
    assert torch.isfinite(out).all()
    assert not list(module.buffers())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(("train", "test", "wide", "deep")))
def test_language_models_run_and_see_the_past_alone(number, split):
    found = TEXT.draw(TOKENS, split, number)
    net = found.module()
    tokens = torch.randint(17, (2, 12))
    out = net(tokens)
    assert out.shape == (2, 12, 17)
    other = tokens.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 17
    assert torch.allclose(net(other)[:, :6], out[:, :6], atol=1e-5)
    assert not torch.allclose(net(other)[:, 6:], out[:, 6:], atol=1e-5)


def test_no_architecture_is_in_two_splits():
    parts = {s: {SPACE.draw(IMAGES, s, i) for i in range(30)} for s in SPLITS}
    assert all(len(found) > 10 for found in parts.values())
    for name in set(SPLITS) - {"train"}:
        assert not parts["train"] & parts[name]
    assert not parts["val"] & parts["test"]


def test_a_draw_is_the_same_in_another_process():
    code = (
        "from hypergen.zoo.architectures import *; import json;"
        f"s = ArchitectureSpace({FAMILIES!r}, width=(4, 12), depth=(1, 3), max_parameters=40000);"
        "print(json.dumps(s.draw(Signature('images', (1, 8, 8), 10), 'test', 7).to_dict()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == SPACE.draw(IMAGES, "test", 7).to_dict()


def test_the_seed_changes_what_is_drawn():
    other = ArchitectureSpace(FAMILIES, (4, 12), (1, 3), max_parameters=40_000, seed=1)
    assert [SPACE.draw(IMAGES, "test", i) for i in range(5)] != [
        other.draw(IMAGES, "test", i) for i in range(5)
    ]


def test_splits_are_what_they_are_called():
    cells = ArchitectureSpace({"cells": 1.0}, width=(4, 12), depth=(1, 3), max_parameters=200_000)
    train = [cells.draw(COLOURS, "train", i) for i in range(20)]
    assert all(4 <= a.channels <= 12 and 1 <= a.cells <= 3 for a in train)
    assert all(cells.draw(COLOURS, "wide", i).channels > 12 for i in range(5))
    assert all(depth_of(cells.draw(COLOURS, "deep", i)) > 3 for i in range(5))
    assert all(len(cells.draw(COLOURS, "dense", i).normal) >= 4 for i in range(5))
    assert all(cells.draw(COLOURS, "norm_free", i).norm is None for i in range(5))
    assert sum(a.norm is None for a in train) < 5
    for split, factor in (("train", 1), ("wide", 8)):
        sizes = [count_parameters(cells.draw(COLOURS, split, i).meta()) for i in range(5)]
        assert max(sizes) <= factor * 200_000


def test_splits_that_no_family_has_are_left_out():
    assert SPACE.splits(IMAGES) == list(SPLITS)
    assert TEXT.splits(TOKENS) == ["train", "val", "test", "wide", "deep"]
    with pytest.raises(UsageError, match="dense"):
        TEXT.draw(TOKENS, "dense")
    with pytest.raises(UsageError, match="tokens"):
        SPACE.draw(TOKENS)


def test_distinct_architectures():
    found = SPACE.distinct(IMAGES, "test", 12)
    assert len(set(found)) == 12
    assert found[:5] == SPACE.distinct(IMAGES, "test", 5)
    tiny = ArchitectureSpace({"mlp": 1.0}, width=(4, 4), depth=(1, 1))
    with pytest.raises(UsageError, match="different architectures"):
        tiny.distinct(IMAGES, "train", 100)


def test_a_start_is_torchs_own_and_leaves_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    found = SPACE.draw(IMAGES, "train", 4)
    a, b, c = found.start(0), found.start(0), found.start(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert a.keys() == dict(found.meta().named_parameters()).keys()
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not all(torch.equal(a[n], c[n]) for n in a)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": {"cell": 1.0}}, "cells"),
        ({"families": {"cells": 0.0}}, "above 0"),
        ({"families": {"cells": -1.0}}, "below 0"),
        ({"width": (8, 4)}, "width"),
        ({"depth": (0, 4)}, "depth"),
        ({"norm_free": 2.0}, "norm_free"),
        ({"max_parameters": 0}, "max_parameters"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        ArchitectureSpace(**options)


def test_a_budget_that_nothing_fits_says_what_the_smallest_needs():
    space = ArchitectureSpace({"mlp": 1.0}, width=(64, 64), depth=(3, 3), max_parameters=100)
    with pytest.raises(UsageError, match="smallest"):
        space.draw(IMAGES)


def test_what_is_no_architecture_is_refused():
    good = SPACE.draw(IMAGES).to_dict()
    with pytest.raises(UsageError, match="unknown architecture"):
        Architecture.from_dict({**good, "class": "CelNet"})
    with pytest.raises(UsageError, match="no option 'chanels'"):
        Architecture.from_dict({**good, "class": "CellNet", "init_args": {"chanels": 3}})
    with pytest.raises(UsageError, match="not an architecture"):
        Architecture.from_dict({})
    with pytest.raises(UsageError, match="reads state 5"):
        CellNet(IMAGES, normal=((("skip", 5),),))
    with pytest.raises(UsageError, match="conv_3"):
        CellNet(IMAGES, normal=((("conv3", 0),),))
