"""LoRA for any architecture from its graph and a text."""

from __future__ import annotations

from typing import Any

import architectures
import pytest
import torch
from architectures import graph

import hypergen
from hypergen import LoRASpec, LoRATarget
from hypergen._utils.errors import ConditionError
from hypergen.generators import GraphHypernetwork

OPTIONS: dict[str, Any] = {
    "encoder": {"name": "transformer", "dim": 16, "layers": 1, "heads": 2},
    "decoder": {"name": "lora", "rank": 4, "features": 32},
    "condition": {"class": "HashingEncoder", "init_args": {"dim": 16}},
}


def hypernetwork() -> GraphHypernetwork:
    torch.manual_seed(0)
    return GraphHypernetwork(**OPTIONS)


def trained() -> GraphHypernetwork:
    """One whose adapters have an effect."""
    made = hypernetwork()
    torch.nn.init.normal_(made.adapters.amount.weight)
    return made


def specs() -> list[LoRASpec]:
    models = [architectures.model("gpt2"), architectures.model("llama")]
    return [
        LoRASpec(models[0], ["c_attn", "wte", "c_fc"], r=2, task_type="CAUSAL_LM"),
        LoRASpec(models[1], "all-linear", r=4, task_type="CAUSAL_LM"),
    ]


GRAPHS = ("gpt2", "llama")


def test_adapters_of_two_models_start_without_an_effect():
    made = hypernetwork()([graph(n) for n in GRAPHS], specs=specs(), condition=["add", "subtract"])
    for name, spec, weights in zip(GRAPHS, specs(), made, strict=True):
        assert weights.spec == spec
        model = architectures.model(name).eval()
        tokens = torch.arange(8)[None]
        plain = model(tokens).logits
        target = LoRATarget(model, spec)
        torch.testing.assert_close(target(weights, {"input_ids": tokens}).logits, plain)


def test_text_and_architecture_change_the_adapter_and_the_batch_does_not():
    made, both = trained(), specs()
    graphs = [graph(n) for n in GRAPHS]
    first = made(graphs, specs=both, condition=["add", "add"])
    other = made(graphs, specs=both, condition=["subtract", "add"])
    assert not torch.allclose(first[0].flat(), other[0].flat())
    torch.testing.assert_close(first[1].flat(), other[1].flat())
    alone = made(graphs[1], specs=both[1], condition=["add"])[0]
    torch.testing.assert_close(alone.flat(), first[1].flat(), rtol=1e-4, atol=1e-6)
    model = architectures.model("gpt2").eval()
    tokens = torch.arange(8)[None]
    target = LoRATarget(model, both[0])
    changed = target(first[0], {"input_ids": tokens}).logits - model(tokens).logits
    assert float(changed.detach().abs().max()) > 1e-3


def test_gradients_reach_every_parameter_once_the_amount_has_moved():
    made = trained()
    weights = made([graph(n) for n in GRAPHS], specs=specs(), condition=["add", "subtract"])
    torch.manual_seed(1)
    sum((w.flat() * torch.randn_like(w.flat())).sum() for w in weights).backward()
    for key, parameter in made.named_parameters():
        assert parameter.grad is not None, key
        assert float(parameter.grad.abs().sum()) > 0, key


def test_saved_and_loaded_it_makes_the_same_adapter(tmp_path):
    made = trained().eval()
    made.save_pretrained(tmp_path)
    loaded = hypergen.load(tmp_path)
    one, other = (
        g(graph("gpt2"), specs=specs()[0], condition=["add"])[0].flat() for g in (made, loaded)
    )
    assert torch.equal(one, other)


def test_what_does_not_fit_is_named():
    made, both = hypernetwork(), specs()
    with pytest.raises(ConditionError, match="2 architectures need as many specs=, not 1"):
        made([graph(n) for n in GRAPHS], specs=both[:1], condition=["add"])
    with pytest.raises(ConditionError, match="has no weight in the graph of LlamaForCausalLM"):
        made(graph("llama"), specs=both[0], condition=["add"])
    wide = LoRASpec(architectures.model("gpt2"), ["c_fc"], r=8)
    with pytest.raises(ConditionError, match="rank 8, this decoder makes up to 4"):
        made(graph("gpt2"), specs=wide, condition=["add"])
    with pytest.raises(ConditionError, match="makes LoRA adapters"):
        hypergen.init_(architectures.model("gpt2"), made)
    with pytest.raises(ConditionError, match="specs= is for the decoder 'lora'"):
        architectures.generator("ours")(graph("gpt2"), specs=both[0])
