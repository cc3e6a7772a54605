"""Several conditions as one."""

from __future__ import annotations

import json

import pytest
import torch

from hypergen.conditions import ConditionEncoder, FusedEncoder, HashingEncoder, TaskEncoder
from hypergen.errors import ConditionError


def fused() -> FusedEncoder:
    torch.manual_seed(0)
    return FusedEncoder({"text": HashingEncoder(16), "task": TaskEncoder(4, 8, 2)}, dim=12)


def test_parts_are_joined_and_may_be_absent():
    encoder = fused()
    both = encoder({"text": ["one two", "three"], "task": [0, 3]})
    text, task = encoder({"text": ["one two", "three"]}), encoder({"task": [0, 3]})
    assert both.tokens.shape == (2, 4, 12)
    assert (text.tokens.shape, task.tokens.shape) == ((2, 2, 12), (2, 2, 12))
    assert torch.equal(both.tokens, torch.cat([task.tokens, text.tokens], 1))
    assert torch.equal(both.mask, torch.cat([task.mask, text.mask], 1))
    assert torch.allclose(both.pooled, (text.pooled + task.pooled) / 2)
    assert bool((both.tokens[~both.mask] == 0).all())


def test_gradients_reach_projections_marks_and_parts():
    encoder = fused()
    encoder({"text": ["one"], "task": [1]}).tokens.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_it_is_rebuilt_with_its_parts():
    encoder = fused()
    again = ConditionEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    again.load_state_dict(encoder.state_dict())
    inputs = {"text": ["one two"], "task": [2]}
    assert torch.equal(again(inputs).tokens, encoder(inputs).tokens)


def test_a_generator_takes_the_parts_by_name(tmp_path):
    import tiny

    from hypergen.generators import Generator, MLPGenerator
    from hypergen.specs import LoRASpec

    net = MLPGenerator(LoRASpec(tiny.model("mlp"), r=2), fused(), hidden=8, depth=1)
    loaded = Generator.from_pretrained(net.save_pretrained(tmp_path / "g"))
    for inputs in ({"text": "one"}, {"task": [1]}, {"text": "one", "task": [1]}):
        assert torch.equal(loaded.generate(**inputs).flat(), net.generate(**inputs).flat())
    with pytest.raises(ConditionError, match="not 'graph'"):
        net.generate(text="one", graph=[1])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "takes task, text: give at least one"),
        ({"text": ["a"], "image": [1]}, "takes task, text, not 'image'"),
        ({"text": ["a", "b"], "task": [1]}, r"different batch sizes \[1, 2\]"),
    ],
)
def test_wrong_parts_are_told(inputs, message):
    with pytest.raises(ConditionError, match=message):
        fused()(inputs)


def test_it_needs_a_part():
    with pytest.raises(ConditionError, match="at least one encoder"):
        FusedEncoder({}, 8)
