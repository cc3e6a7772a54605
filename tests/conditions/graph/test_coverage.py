"""Every parameter has a status, a reason where it is not predicted, and errors that name it."""

from __future__ import annotations

import json

import pytest
import torch
from graph_networks import mlp, resnet_like
from torch import nn

from hypergen.conditions.graph import coverage, trace
from hypergen.errors import ConditionError


class Partly(nn.Module):
    """Holds parameters that nothing can be predicted for, each for another reason."""

    def __init__(self):
        super().__init__()
        self.layer, self.idle, self.dead = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.codes = nn.Parameter(torch.zeros(4, dtype=torch.int8), requires_grad=False)
        self.deep = nn.Parameter(torch.zeros(1, 1, 1, 1, 1, 4))

    def forward(self, x):
        self.dead(x)
        return self.layer(x) * self.codes + self.deep.flatten()


REASONS = {
    "codes": "it is int8, not floating point",
    "deep": "it has 6 axes, more than 5",
    "idle.weight": "the forward does not use it",
    "idle.bias": "the forward does not use it",
    "dead.weight": "what is computed from it reaches no output",
    "dead.bias": "what is computed from it reaches no output",
}


def test_what_cannot_be_predicted_has_a_reason():
    report = coverage(Partly(), strict=False)
    assert {p.name: p.reason for p in report.of("unsupported")} == REASONS
    assert [p.name for p in report.of("predicted")] == ["layer.weight", "layer.bias"]
    assert not report.complete


def test_strict_raises_by_name_and_says_what_to_do():
    with pytest.raises(ConditionError, match=r"6 of 8 .*codes: it is int8.*keep=.*strict=False"):
        coverage(Partly())


def test_what_is_kept_is_not_unsupported():
    keep = ["idle.*", "dead.*", "codes", "deep"]
    report = coverage(Partly(), keep=keep)
    assert report.complete
    assert {p.name for p in report.of("kept")} == set(REASONS)
    assert report.counts()["kept"] == {"parameters": 6, "numbers": 48}


def test_a_tied_parameter_is_kept_by_any_of_its_names():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    report = coverage(nn.Sequential(first, second), keep="1.weight")
    assert [p.name for p in report.of("kept")] == ["0.weight"]
    assert report.of("kept")[0].ties == ("1.weight",)


def test_a_pattern_without_a_match_is_an_error():
    with pytest.raises(ConditionError, match=r"keep='haed\.\*' matches no parameter"):
        coverage(mlp(), keep="haed.*")


def test_a_graph_of_another_network_covers_nothing_of_this_one():
    with pytest.raises(ConditionError, match="not in the graph"):
        coverage(resnet_like(), graph=trace(mlp()))


def test_the_table_and_the_json_account_for_every_parameter():
    report = coverage(Partly(), strict=False)
    table = report.table()
    assert all(f"{name} " in table and reason in table for name, reason in REASONS.items())
    data = json.loads(json.dumps(report.to_dict()))
    assert [p["name"] for p in data["parameters"]] == [n for n, _ in Partly().named_parameters()]
    assert sum(c["parameters"] for c in data["counts"].values()) == 8
    assert "and 4 more" in report.table(limit=2)


def test_running_statistics_are_listed_as_buffers():
    report = coverage(resnet_like())
    assert len(report.buffers) == 14
    assert "14 buffers" in str(report)
