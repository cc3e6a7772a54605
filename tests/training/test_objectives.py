"""Objectives by name."""

from __future__ import annotations

import pytest
import torch
import toy

from hypergen.errors import UsageError
from hypergen.generators import (
    DeltaReconstruction,
    Distillation,
    Mixture,
    Objective,
    Reconstruction,
    TaskLoss,
)
from hypergen.training import make_objective


class Odd(Objective):
    def __init__(self, colour) -> None:
        super().__init__()

    def forward(self, weights, batch):
        return weights.flat().sum()


@pytest.mark.parametrize(
    ("name", "cls", "needs"),
    [
        ("task", TaskLoss, {"inputs"}),
        ("reconstruction", Reconstruction, {"weights"}),
        ("delta_reconstruction", DeltaReconstruction, {"weights"}),
        ("distillation", Distillation, {"inputs", "teacher_logits"}),
        ("toy.Shrink", toy.Shrink, set()),
    ],
)
def test_a_name_gives_an_objective(name, cls, needs):
    made = make_objective(name, toy.ToyData())
    assert type(made) is cls
    assert made.needs == needs


def test_reconstruction_is_in_units_of_the_zoo():
    data = toy.ToyData()
    flat = data.zoo[0].flat()
    made = make_objective("reconstruction", data)
    loss = made(data.spec.from_flat(flat + flat.std(0, correction=0)), {"weights": flat})
    torch.testing.assert_close(loss, torch.tensor(1.0))


def test_weights_mix():
    data = toy.ToyData()
    data.setup("fit")
    both = make_objective({"task": 0.5, "reconstruction": 2.0}, data)
    assert isinstance(both, Mixture)
    assert both.needs == {"inputs", "weights"}
    data.needs = both.needs
    batch = data.train_dataloader().draw(0)
    weights = data.spec.from_flat(torch.randn(8, data.spec.numel))
    parts = [make_objective(name, data)(weights, batch) for name in ("task", "reconstruction")]
    torch.testing.assert_close(both(weights, batch), 0.5 * parts[0] + 2.0 * parts[1])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("tsak", "there is no objective 'tsak'. Did you mean 'task'"),
        ({}, "the objective is empty"),
        ("nowhere.Thing", "'nowhere.Thing' cannot be imported"),
        ("torch.nn.Linear", "'torch.nn.Linear' is not an Objective"),
    ],
)
def test_a_wrong_name_is_named(recipe, message):
    with pytest.raises(UsageError, match=message):
        make_objective(recipe, toy.ToyData())


def test_an_argument_that_nobody_provides_is_named(monkeypatch):
    from hypergen.training import OBJECTIVES

    monkeypatch.setitem(OBJECTIVES, "odd", Odd)
    with pytest.raises(UsageError, match="'odd' needs 'colour', which no data module provides"):
        make_objective("odd", toy.ToyData())
