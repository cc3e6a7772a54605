"""LoRATarget against the materialised update."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch.func import functional_call

from hypergen.errors import WeightsError
from hypergen.specs import FullSpec, LoRASpec
from hypergen.targets import LoRATarget, make_target

CASES = [
    ("mlp", {"r": 2}),
    ("mlp", {"r": 4, "alpha": 3, "use_rslora": True, "rank_pattern": {"fc2": 2}}),
    ("tagger", {"r": 2, "target_modules": ["embed", "fc2"]}),
    ("gpt2", {"r": 2, "target_modules": ["c_attn", "c_proj", "wpe"]}),
    ("llama", {"r": 2}),
]


def merged(name: str, spec: LoRASpec, weights, index: int) -> dict[str, torch.Tensor]:
    """The base's weights with one network's updates added."""
    own = dict(tiny.model(name).named_parameters())
    out = {}
    for path in spec.modules:
        delta = spec.delta(weights, path)[index]
        # Embeddings [vocabulary, width] and Conv1D [in, out] are stored the other way round.
        is_linear = spec.config["modules"][path]["type"] == "linear"
        out[f"{path}.weight"] = own[f"{path}.weight"] + (delta if is_linear else delta.T)
    return out


@pytest.mark.parametrize(("name", "options"), CASES)
def test_it_is_the_network_with_the_update_added(name, options):
    net = tiny.make(name)
    spec = LoRASpec(net, **options)
    weights = spec.from_flat(0.3 * torch.randn(3, spec.numel))
    inputs = tiny.batch(name, 6)
    out = tiny.logits(make_target(net, spec)(weights, inputs))
    for i in range(3):
        part = tiny.rows(inputs, 2 * i, 2 * i + 2)
        args, kwargs = ((), part) if isinstance(part, dict) else ((part,), {})
        parameters = merged(name, spec, weights, i)
        expected = functional_call(tiny.model(name), parameters, args, kwargs)
        assert torch.allclose(out[2 * i : 2 * i + 2], tiny.logits(expected), atol=1e-4)


def test_gradients_are_those_of_the_merged_network():
    net = tiny.make("mlp")
    spec = LoRASpec(net, r=2)
    flat = torch.randn(1, spec.numel, requires_grad=True)
    x = tiny.batch("mlp", 4)
    (ours,) = torch.autograd.grad(
        make_target(net, spec)(spec.from_flat(flat), x).square().sum(), flat
    )
    parameters = merged("mlp", spec, spec.from_flat(flat), 0)
    merged_out = functional_call(tiny.model("mlp"), parameters, (x,))
    (theirs,) = torch.autograd.grad(merged_out.square().sum(), flat)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_dtype_of_the_network_is_kept():
    net = tiny.make("mlp").to(torch.bfloat16)
    spec = LoRASpec(net, ["fc1"], r=2)
    out = make_target(net, spec)(
        spec.from_flat(torch.randn(2, spec.numel)), tiny.batch("mlp", 4).bfloat16()
    )
    assert out.dtype == torch.bfloat16


def test_a_missing_module_and_another_base_are_told():
    net = tiny.make("mlp")
    spec = LoRASpec(net, ["fc1"], r=2)
    spec.config["base"]["fingerprint"] = None  # as made on the meta device: names alone count
    with pytest.raises(WeightsError, match="has no module 'fc1', which the weights adapt"):
        LoRATarget(tiny.make("nested"), spec)
    with pytest.raises(WeightsError, match="made for another base model than this MLP"):
        LoRATarget(tiny.make("mlp", seed=1), LoRASpec(net, ["fc1"], r=2))


def test_samples_of_one_network_may_be_many():
    net = tiny.make("mlp")
    spec = LoRASpec(net, r=2)
    weights = spec.from_flat(torch.randn(2, spec.numel))
    x = torch.randn(2 * 17, 8)
    out = make_target(net, spec)(weights, x)
    swapped = make_target(net, spec)(weights[[1, 0]], torch.cat([x[17:], x[:17]]))
    assert torch.allclose(out, torch.cat([swapped[17:], swapped[:17]]), atol=1e-6)


def test_full_specs_are_not_for_it():
    net = tiny.make("mlp")
    assert not isinstance(make_target(net, FullSpec(net)), LoRATarget)
