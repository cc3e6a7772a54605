"""PeftTarget: PEFT's own modules around shared tensors."""

from __future__ import annotations

import pytest
import tiny
import torch

from hypergen.errors import WeightsError
from hypergen.specs import LoRASpec, PeftSpec
from hypergen.targets import PeftTarget, make_target


def spec_of(net, **options) -> PeftSpec:
    from peft import LoraConfig

    return PeftSpec(net, LoraConfig(r=2, target_modules=["fc1", "fc2"], **options))


def test_it_agrees_with_the_lora_target():
    net = tiny.make("mlp")
    ours, theirs = LoRASpec(net, ["fc1", "fc2"], r=2, alpha=8), spec_of(net, lora_alpha=8)
    assert {s.name: s.shape for s in ours} == {s.name: s.shape for s in theirs}
    weights = ours.from_flat(torch.randn(2, ours.numel))
    x = tiny.batch("mlp", 4)
    same = theirs.from_named(weights.named())
    assert torch.allclose(make_target(net, ours)(weights, x), make_target(net, theirs)(same, x))


def test_the_base_is_shared_not_copied_and_not_changed():
    net = tiny.make("mlp")
    target = make_target(net, spec_of(net))
    assert isinstance(target, PeftTarget)
    own = {p.data_ptr() for p in net.parameters()}
    wrapped = {p.data_ptr() for p in target._called.parameters()}
    assert own <= wrapped
    assert not any("lora" in name for name, _ in net.named_modules())


def test_a_spec_from_json_serves_as_well():
    net = tiny.make("mlp")
    spec = spec_of(net, use_dora=True)
    again = type(spec).from_dict(spec.to_dict())
    flat = spec.initial() + 0.1
    x = tiny.batch("mlp", 2)
    one = make_target(net, spec)(spec.from_flat(flat), x)
    assert torch.equal(one, make_target(net, again)(again.from_flat(flat), x))


def test_other_specs_and_bases_are_refused():
    net = tiny.make("mlp")
    with pytest.raises(WeightsError, match="takes a PeftSpec, not LoRASpec"):
        PeftTarget(net, LoRASpec(net))
    with pytest.raises(WeightsError, match="made for another base model"):
        PeftTarget(tiny.make("mlp", seed=1), spec_of(net))
