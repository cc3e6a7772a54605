"""AdapterSpec: bottlenecks behind modules."""

from __future__ import annotations

import pytest
import tiny
from torch import nn

from hypergen.errors import SpecError
from hypergen.specs import AdapterSpec


def test_slots_of_a_bottleneck():
    spec = AdapterSpec(tiny.model("mlp_norm"), ["fc1", "norm", "out"], bottleneck=3)
    assert spec.modules == ("fc1", "norm", "out")
    assert spec["norm.adapter_down.weight"].shape == (3, 12)
    assert spec["out.adapter_up.weight"].shape == (3, 3)
    assert spec["out.adapter_up.weight"].std == 0
    assert spec["fc1.adapter_down.weight"].std == pytest.approx(12**-0.5)


def test_modules_stay_in_the_order_of_the_model_whatever_their_widths():
    net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 6))
    assert AdapterSpec(net).modules == ("0", "1", "2")


def test_widths_are_read_or_given():
    net = nn.Sequential(nn.ReLU())
    with pytest.raises(SpecError, match=r"width of module '0' \(ReLU\) is unknown"):
        AdapterSpec(net, ["0"])
    assert AdapterSpec(net, ["0"], widths={"0": 5})["0.adapter_up.bias"].shape == (5,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bottleneck": 0}, "at least 1"),
        ({"activation": "swish"}, "'swish' is not one of"),
        ({"target_modules": ["fc9"]}, "'fc9' is not in the model"),
    ],
)
def test_wrong_arguments_are_told(options, message):
    with pytest.raises(SpecError, match=message):
        AdapterSpec(tiny.model("mlp"), **options)
