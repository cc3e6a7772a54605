"""FullSpec and DeltaSpec: whole parameters."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from torch import nn

from hypergen.errors import SpecError
from hypergen.specs import DeltaSpec, FullSpec


def test_roles_fans_and_starts():
    spec = FullSpec(tiny.model("conv"))
    conv = spec["conv2.weight"]
    assert (conv.role, conv.fan_in, conv.fan_out) == ("weight", 4 * 9, 4)
    assert conv.std == pytest.approx(math.sqrt(2 / 36))
    assert (spec["bn.weight"].role, spec["bn.weight"].mean, spec["bn.weight"].std) == ("norm", 1, 0)
    assert (spec["gn.bias"].role, spec["gn.bias"].mean) == ("bias", 0)
    assert spec["temperature"].shape == ()
    assert spec["temperature"].role == "other"


def test_conv1d_of_gpt2_has_its_fans_the_other_way_round():
    slot = FullSpec(tiny.model("gpt2"), "*mlp.c_fc.weight")["transformer.h.0.mlp.c_fc.weight"]
    assert (slot.shape, slot.fan_in, slot.fan_out) == ((16, 64), 16, 64)


def test_tied_parameters_are_one_slot():
    spec = FullSpec(tiny.model("tied"))
    assert spec.names == ("embed.weight", "mid.weight", "mid.bias")
    assert spec["embed.weight"].ties == ("head.weight",)
    assert FullSpec(tiny.model("gpt2"))["transformer.wte.weight"].ties == ("lm_head.weight",)


def test_globs_select():
    spec = DeltaSpec(tiny.model("mlp"), ["fc?.weight", "out.*"])
    assert set(spec.names) == {"fc1.weight", "fc2.weight", "out.weight", "out.bias"}
    assert torch.equal(spec.initial(), torch.zeros(spec.numel))
    with pytest.raises(SpecError, match=r"no parameter of MLP matches 'fc3\.\*'"):
        FullSpec(tiny.model("mlp"), "fc3.*")


def test_dtypes_are_kept_and_integers_refused():
    net = tiny.make("mlp")
    net.fc2.to(torch.bfloat16)
    spec = FullSpec(net)
    assert spec["fc2.weight"].dtype == "bfloat16"
    assert spec["fc1.weight"].dtype == "float32"
    net.scale = nn.Parameter(torch.zeros(2, dtype=torch.int32), requires_grad=False)
    with pytest.raises(SpecError, match=r"parameter 'scale' is torch\.int32"):
        FullSpec(net)


def test_the_base_of_a_full_spec_cannot_be_returned():
    with pytest.raises(SpecError, match="no neutral weights"):
        FullSpec(tiny.model("mlp")).neutral()


def test_buffers_are_slots_where_asked_for():
    net = tiny.make("conv")
    net.register_buffer("cache", torch.zeros(2), persistent=False)
    spec = FullSpec(net, buffers=True)
    assert set(spec.names) - set(FullSpec(net).names) == {"bn.running_mean", "bn.running_var"}
    mean, var = spec["bn.running_mean"], spec["bn.running_var"]
    assert (mean.mean, mean.std, mean.shape, mean.module) == (0.0, 0.0, (4,), "bn")
    assert (var.mean, var.std, var.role) == (1.0, 0.0, "other")
    assert FullSpec(net, "bn.*", buffers=True).config["buffers"] is True
    assert FullSpec(net, "fc.*", buffers=True).names == FullSpec(net, "fc.*").names


def test_specs_without_buffers_are_written_as_ever():
    net = tiny.model("conv")
    assert set(FullSpec(net).config) == {"select", "gain", "base"}
    assert FullSpec(net, buffers=False).fingerprint == FullSpec(net).fingerprint
    assert FullSpec(net, buffers=True).fingerprint != FullSpec(net).fingerprint
