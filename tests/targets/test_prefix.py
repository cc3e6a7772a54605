"""PrefixTarget: masks, inputs, one prefix for each sample."""

from __future__ import annotations

import pytest
import tiny
import torch

from hypergen.errors import WeightsError
from hypergen.specs import PrefixSpec, cache_argument
from hypergen.targets import make_target


@pytest.fixture(params=["llama", "gpt2"])
def case(request):
    net = tiny.make(request.param)
    spec = PrefixSpec(net, 3)
    weights = spec.from_flat(torch.randn(2, spec.numel))
    return net, make_target(net, spec), weights, tiny.batch(request.param, 4)


def test_a_prefix_is_what_comes_before(case):
    """Keys and values that the network computed itself, put before: as if it had read the text."""
    net, target, _, inputs = case
    ids = inputs["input_ids"]
    first, rest = ids[:1, :3], ids[:1, 3:]
    with torch.no_grad():
        name = cache_argument(net)
        cache = getattr(net(input_ids=first, use_cache=True), name)
        layers = [layer for layer in cache.layers if layer.keys is not None]
        named = {}
        for i, layer in enumerate(layers):
            for part, value in (("key", layer.keys), ("value", layer.values)):
                named[f"prefix.{i}.{part}"] = value[0].transpose(0, 1).flatten(1)
        weights = target.spec.from_named(named)
        continued = target(weights, {"input_ids": rest}).logits
        whole = net(input_ids=ids[:1]).logits[:, 3:]
    assert torch.allclose(continued, whole, atol=1e-5)


def test_the_mask_is_made_or_lengthened(case):
    _, target, weights, inputs = case
    with torch.no_grad():
        given = target(weights, inputs).logits
        made = target(weights, {"input_ids": inputs["input_ids"]}).logits
        alone = target(weights, inputs["input_ids"]).logits
        embedded = target(
            weights,
            {"inputs_embeds": target.model.get_input_embeddings()(inputs["input_ids"])},
        ).logits
    for other in (made, alone, embedded):
        assert torch.allclose(given, other, atol=1e-6)


def test_padding_on_the_right_does_not_matter(case):
    _, target, weights, inputs = case
    ids = torch.nn.functional.pad(inputs["input_ids"], (0, 2), value=1)
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 2))
    with torch.no_grad():
        padded = target(weights, {"input_ids": ids, "attention_mask": mask}).logits[:, :5]
        plain = target(weights, inputs).logits
    assert torch.allclose(padded, plain, atol=1e-5)


def test_wrong_inputs_are_told(case):
    _, target, weights, inputs = case
    with pytest.raises(WeightsError, match="needs input_ids or inputs_embeds"):
        target(weights, {"attention_mask": inputs["attention_mask"]})
    with pytest.raises(WeightsError, match="input_ids alone"):
        target(weights, (inputs["input_ids"], inputs["attention_mask"]))
    own = cache_argument(target.model)
    other = "cache" if own == "past_key_values" else "past_key_values"
    with pytest.raises(WeightsError, match=f"is called {own}"):
        target(weights, {**inputs, other: object()})


def test_a_call_goes_on_from_what_another_has_read(case):
    net, target, weights, inputs = case
    ids, name = inputs["input_ids"], cache_argument(net)
    place = torch.arange(ids.shape[1]).expand_as(ids)
    with torch.no_grad():
        whole = target(weights, {"input_ids": ids}).logits
        first = target(weights, {"input_ids": ids[:, :2], "use_cache": True})
        assert torch.allclose(first.logits, whole[:, :2], atol=1e-5)
        seen = torch.ones_like(ids)
        rest = target(
            weights,
            {
                "input_ids": ids[:, 2:],
                "attention_mask": seen,
                "position_ids": place[:, 2:],
                name: getattr(first, name),
            },
        ).logits
    assert torch.allclose(rest, whole[:, 2:], atol=1e-5)


def test_a_mask_of_four_dimensions_is_lengthened_too():
    net = tiny.make("llama")
    spec = PrefixSpec(net, 3)
    target, weights = make_target(net, spec), spec.from_flat(torch.randn(2, spec.numel))
    ids = tiny.batch("llama", 4)["input_ids"]
    sees = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
    with torch.no_grad():
        plain = target(weights, {"input_ids": ids}).logits
        given = target(
            weights,
            {"input_ids": ids, "attention_mask": mask.expand(len(ids), 1, *mask.shape)},
        ).logits
    assert torch.allclose(given, plain, atol=1e-5)
