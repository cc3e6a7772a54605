"""Sketches of a frozen network's own weights."""

from __future__ import annotations

import json
import math

import pytest
import tiny
import torch
from torch import nn

from hypergen.conditions import (
    BaseWeightsEncoder,
    ConditionEncoder,
    FusedEncoder,
    HashingEncoder,
    TaskEncoder,
    WithBaseWeights,
    base_weights,
)
from hypergen.errors import ConditionError
from hypergen.generators import Generator, MLPGenerator
from hypergen.specs import LoRASpec

PATHS = ["fc1", "fc2", "out"]


def read(model: nn.Module | None = None, paths=PATHS, sketch: int = 4) -> BaseWeightsEncoder:
    return BaseWeightsEncoder.from_model(model or tiny.make("mlp"), paths, sketch)


def test_one_token_a_module_the_same_at_every_call_and_for_every_row():
    encoder = read()
    condition = encoder(["a", "b"])
    assert condition.tokens.shape == (2, 3, encoder.dim)
    assert bool(condition.mask.all())
    assert torch.equal(condition.tokens[0], condition.tokens[1])
    assert torch.equal(encoder(2).tokens, condition.tokens)
    assert torch.equal(read().tokens, encoder.tokens)
    assert not list(encoder.parameters())
    assert 0.2 < float(encoder.tokens.square().mean().sqrt()) < 3


def test_the_sketch_is_linear_and_blind_to_size_in_its_first_numbers():
    model = tiny.make("mlp")
    before = read(model).tokens
    with torch.no_grad():
        model.fc1.weight.mul_(3)
        model.fc2.weight.neg_()
    after = read(model).tokens
    assert torch.allclose(after[0, :16], before[0, :16], atol=1e-5)
    assert torch.allclose(after[1, :16], -before[1, :16], atol=1e-5)
    assert torch.allclose(after[1, 16:], before[1, 16:], atol=1e-5)  # nothing else sees a sign
    size = after[0] - before[0]
    assert float(size[-3]) == pytest.approx(math.log(3) / 3, rel=1e-4)
    assert torch.equal(after[2], before[2])


def test_a_small_change_moves_a_token_a_little_and_its_own_alone():
    """Also at equal singular values, where singular vectors would jump."""
    model = tiny.make("mlp")
    with torch.no_grad():
        model.fc2.weight.copy_(torch.eye(12))
    before = read(model)
    with torch.no_grad():
        model.fc2.weight[0, 0] += 1e-2
    after = read(model)
    change = (after.tokens - before.tokens).abs().amax(1)
    assert 0 < float(change[1]) < 0.1
    assert float(change[[0, 2]].max()) == 0
    assert after.fingerprint != before.fingerprint


def test_conv_and_transposed_weights_are_read():
    assert BaseWeightsEncoder.from_model(tiny.model("conv"), ["conv", "fc"]).tokens.isfinite().all()
    model = tiny.make("gpt2")
    path = "transformer.h.0.mlp.c_fc"
    module = model.get_submodule(path)
    plain = nn.Linear(module.weight.shape[0], module.weight.shape[1])
    plain.weight.data = module.weight.data.T
    transposed = BaseWeightsEncoder.from_model(model, [path]).tokens
    straight = BaseWeightsEncoder.from_model(nn.Sequential(plain), ["0"]).tokens
    assert torch.allclose(transposed, straight, atol=1e-5)


def test_half_precision_is_the_same_base():
    # A base whose numbers bfloat16 holds, as those of a model that was released in it.
    model = tiny.make("mlp").to(torch.bfloat16)
    full = tiny.make("mlp")
    full.load_state_dict({k: v.float() for k, v in model.state_dict().items()})
    assert read(model).fingerprint == read(full).fingerprint
    assert torch.equal(read(model).tokens, read(full).tokens)


def test_a_zero_weight_gives_numbers():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    nn.init.zeros_(model[0].weight)
    assert bool(read(model, ["0", "1"]).tokens.isfinite().all())


def test_tokens_are_saved_with_a_generator_and_need_no_model(tmp_path):
    spec = LoRASpec(tiny.model("mlp"), r=2)
    torch.manual_seed(0)
    encoder = FusedEncoder({"text": HashingEncoder(16), "base": read()}, dim=12)
    net = MLPGenerator(spec, encoder, hidden=8, depth=1, init="forward")
    loaded = Generator.from_pretrained(net.save_pretrained(tmp_path / "g"))
    # The base is a constant part: the text is all that is given.
    weights = net.generate(text=["one", "two"])
    assert torch.equal(loaded.generate(text=["one", "two"]).flat(), weights.flat())
    found = base_weights(loaded.encoder)
    assert found is not None
    assert torch.equal(found.tokens, read().tokens)
    assert found.fingerprint == read().fingerprint


def test_a_fused_condition_holds_one_more_token_a_module():
    torch.manual_seed(0)
    parts = {"text": HashingEncoder(16), "task": TaskEncoder(4, 8), "base": read()}
    encoder = FusedEncoder(parts, dim=12)
    both = encoder({"text": ["one two", "three"]})
    assert both.tokens.shape == (2, 3 + 2, 12)
    assert torch.equal(encoder({"text": ["one two", "three"], "base": [0, 0]}).tokens, both.tokens)
    assert encoder({"base": 2}).tokens.shape == (2, 3, 12)
    alone = encoder({"text": ["three"]})
    assert torch.allclose(alone.tokens[0, :4], both.tokens[1, :4], atol=1e-6)


def test_beside_another_encoder_the_condition_is_that_encoders():
    text = HashingEncoder(16)
    encoder = WithBaseWeights(text, read())
    assert (encoder.input_name, encoder.dim) == ("text", 16)
    assert torch.equal(encoder(["one two"]).tokens, text(["one two"]).tokens)
    assert base_weights(encoder) is encoder.base
    assert base_weights(text) is None
    again = ConditionEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(base_weights(again).tokens, encoder.base.tokens)
    assert WithBaseWeights(TaskEncoder(3), read()).input_name == "task"


def test_another_base_is_told(tmp_path):
    spec = LoRASpec(tiny.model("mlp"), r=2)
    net = MLPGenerator(spec, WithBaseWeights(HashingEncoder(16), read()), hidden=8, depth=1)
    net.save_pretrained(tmp_path / "g")
    other = WithBaseWeights(HashingEncoder(16), read(tiny.make("mlp", seed=1)))
    with pytest.raises(ConditionError, match="another encoder"):
        Generator.from_pretrained(tmp_path / "g", encoder=other)


def test_what_cannot_be_read_is_told():
    model = tiny.make("mlp_norm")
    with pytest.raises(ConditionError, match=r"no module 'fc3'.*fc"):
        read(model, ["fc1", "fc3"])
    with pytest.raises(ConditionError, match=r"'norm'.*has no weight matrix"):
        read(model, ["norm"])
    with pytest.raises(ConditionError, match="'fc1' is on the meta device"):
        read(model.to("meta"))
    model = tiny.make("mlp")
    model.fc2.weight = nn.Parameter(model.fc2.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ConditionError, match=r"'fc2' is quantised \(torch.int8\)"):
        read(model)
    model.fc2.weight = nn.Parameter(torch.full((12, 12), float("nan")))
    with pytest.raises(ConditionError, match="'fc2' holds NaN"):
        read(model)
    with pytest.raises(ConditionError, match="has read no weights"):
        BaseWeightsEncoder(PATHS)(2)
    with pytest.raises(ConditionError, match="is empty"):
        read()([])
    with pytest.raises(ConditionError, match="at least one module"):
        BaseWeightsEncoder([])
