"""What all targets share: checks before the call, a frozen network, the right class."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
import torch

from hypergen.errors import SpecError, WeightsError
from hypergen.specs import (
    AdapterSpec,
    DeltaSpec,
    FullSpec,
    LoRASpec,
    PrefixSpec,
    Slot,
    WeightSpec,
    model_fingerprint,
)
from hypergen.targets import (
    AdapterTarget,
    FunctionalTarget,
    LoRATarget,
    PrefixTarget,
    Target,
    make_target,
)

KINDS = [
    ("mlp", LoRASpec, LoRATarget),
    ("mlp", AdapterSpec, AdapterTarget),
    ("mlp", FullSpec, FunctionalTarget),
    ("mlp", DeltaSpec, FunctionalTarget),
    ("llama", PrefixSpec, PrefixTarget),
]


def lora(alpha: float = 4.0) -> tuple[Target, LoRASpec]:
    net = tiny.make("mlp")
    spec = LoRASpec(net, ["fc1"], r=2, alpha=alpha)
    return make_target(net, spec), spec


@pytest.mark.parametrize(("name", "kind", "cls"), KINDS)
def test_each_kind_has_its_target(name, kind, cls):
    net = tiny.make(name)
    assert type(make_target(net, kind(net))) is cls


def test_a_spec_without_a_target_is_told():
    with pytest.raises(SpecError, match="no target takes a 'generic' spec"):
        make_target(tiny.make("mlp"), WeightSpec([Slot("a", (1,), "bias")]))


def test_the_network_is_frozen_and_stays_so():
    net = tiny.make("mlp").train()
    target = make_target(net, LoRASpec(net))
    assert not any(p.requires_grad for p in target.parameters())
    target.train()
    assert not target.training
    assert not net.training


def test_weights_of_another_spec_are_told_apart():
    target, spec = lora()
    x = tiny.batch("mlp", 2)
    _, other = lora(alpha=8.0)
    with pytest.raises(WeightsError, match="other slots or settings"):
        target(other.from_flat(other.initial()), x)
    net = tiny.make("mlp")
    for wrong, message in [
        (LoRASpec(net, ["fc2"], r=2), r"takes slot 'fc1\.lora_A\.weight', which the weights do"),
        (LoRASpec(net, ["fc1"], r=3), r"'fc1\.lora_A\.weight' is \(2, 8\) in the target and \(3"),
        (LoRASpec(tiny.make("mlp", 1), ["fc1"], r=2), "made for another base model"),
    ]:
        with pytest.raises(WeightsError, match=message):
            target(wrong.from_flat(wrong.initial()), x)
    # An equal spec from elsewhere is the same spec.
    again = WeightSpec.from_dict(spec.to_dict())
    target(again.from_flat(again.initial()), x)


def test_samples_are_split_evenly_or_not_at_all():
    target, spec = lora()
    weights = spec.from_flat(torch.randn(3, spec.numel))
    assert target(weights, tiny.batch("mlp", 6)).shape == (6, 3)
    with pytest.raises(WeightsError, match="7 samples cannot be split evenly over 3 networks"):
        target(weights, tiny.batch("mlp", 7))


def test_batches_are_tensors_tuples_or_mappings():
    target, spec = lora()
    weights, x = spec.from_flat(torch.randn(1, spec.numel)), tiny.batch("mlp", 2)
    plain = target(weights, x)
    assert torch.equal(plain, target(weights, (x,)))
    assert torch.equal(plain, target(weights, {"x": x}))
    assert torch.equal(target.base(x), target.base({"x": x}))


def test_both_base_models_are_named():
    spec = LoRASpec(tiny.make("mlp"), ["fc1"], r=2)
    other = tiny.make("mlp", 1)
    other.config = SimpleNamespace(_name_or_path="our/model")
    ours, theirs = model_fingerprint(other)[:12], spec.config["base"]["fingerprint"][:12]
    names = rf"than this MLP, our/model \(fingerprint {ours}\): for MLP \(fingerprint {theirs}\)"
    with pytest.raises(WeightsError, match=names):
        make_target(other, spec)
    target = make_target(other, LoRASpec(other, ["fc1"], r=2))
    with pytest.raises(WeightsError, match=names):
        target(spec.from_flat(spec.initial()), tiny.batch("mlp", 2))


def test_two_versions_of_one_name_are_told_apart():
    one, two = tiny.make("mlp"), tiny.make("mlp", 1)
    one.config = two.config = SimpleNamespace(_name_or_path="our/model")
    with pytest.raises(WeightsError, match=r"one name, but other values \(another revision"):
        make_target(two, LoRASpec(one, ["fc1"], r=2))
