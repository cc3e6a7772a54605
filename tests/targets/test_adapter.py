"""AdapterTarget against the formula."""

from __future__ import annotations

import pytest
import tiny
import torch

from hypergen.errors import WeightsError
from hypergen.specs import AdapterSpec
from hypergen.targets import AdapterTarget, make_target


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_it_is_the_residual_bottleneck(activation):
    net = tiny.make("mlp")
    spec = AdapterSpec(net, ["out"], 5, activation)
    weights = spec.from_flat(torch.randn(2, spec.numel))
    x = tiny.batch("mlp", 6)
    out = make_target(net, spec)(weights, x)
    act = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "tanh": torch.tanh}[activation]
    h = tiny.model("mlp")(x)
    for i in range(2):
        one, part = weights[i], h[3 * i : 3 * i + 3]
        down, up = one["out.adapter_down.weight"][0], one["out.adapter_up.weight"][0]
        inner = act(part @ down.T + one["out.adapter_down.bias"])
        expected = part + inner @ up.T + one["out.adapter_up.bias"]
        assert torch.allclose(out[3 * i : 3 * i + 3], expected, atol=1e-5)


def test_a_missing_module_is_told():
    spec = AdapterSpec(tiny.make("mlp"), ["fc1"])
    spec.config["base"]["fingerprint"] = None
    with pytest.raises(WeightsError, match="has no module 'fc1', which the weights adapt"):
        AdapterTarget(tiny.make("nested"), spec)
