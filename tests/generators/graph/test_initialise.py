"""Networks that start from generated weights, in place."""

from __future__ import annotations

import architectures
import pytest
import torch
from architectures import NAMES, generator, graph
from torch import nn

import hypergen
from hypergen._utils.errors import ConditionError, UsageError, WeightsError
from hypergen.conditions.graph import trace
from hypergen.generators.graph import parameters_of


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["ghn2", "ours", "compressed"])
def test_every_parameter_gets_what_the_generator_makes(name, kind):
    model, hypernetwork = architectures.model(name), generator(kind)
    buffers = {k: b.clone() for k, b in model.named_buffers()}
    report = hypergen.init_(model, hypernetwork)
    assert report.complete
    wanted = parameters_of(hypernetwork.eval()(graph(name))[0])
    for key, parameter in model.named_parameters(remove_duplicate=False):
        torch.testing.assert_close(parameter.detach(), wanted[key].detach())
        assert parameter.requires_grad
    for key, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[key])


def test_values_are_rounded_to_the_dtype_of_the_model_and_its_layout_stays():
    model = architectures.model("resnet").to(memory_format=torch.channels_last)
    hypergen.init_(model, generator("ours"))
    plain = architectures.model("resnet")
    hypergen.init_(plain, generator("ours"))
    half = architectures.model("resnet").to(torch.bfloat16)
    hypergen.init_(half, generator("ours"))
    for a, b, c in zip(model.parameters(), plain.parameters(), half.parameters(), strict=True):
        torch.testing.assert_close(a, b)
        assert a.dim() < 4 or a.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(c, b.to(torch.bfloat16))


def test_what_is_kept_keeps_its_values_and_is_reported():
    model = architectures.model("vit")
    head = model.classifier.weight.clone()
    report = hypergen.init_(model, generator("ours"), keep=["classifier.*"])
    assert torch.equal(model.classifier.weight, head)
    assert {p.name for p in report.of("kept")} == {"classifier.weight", "classifier.bias"}


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_a_parameter_that_cannot_be_generated_is_named_or_left_alone():
    model = Unused()
    before = model.spare.weight.clone()
    with pytest.raises(ConditionError, match=r"spare\.weight: the forward does not use it"):
        hypergen.init_(model, generator("ours"))
    report = hypergen.init_(model, generator("ours"), strict=False)
    assert {p.name for p in report.of("unsupported")} == {"spare.weight", "spare.bias"}
    assert torch.equal(model.spare.weight, before)


def test_roles_that_a_generator_was_not_trained_with_are_named():
    hypernetwork = generator("ours").train()
    hypernetwork(graph("mlp"))
    hypergen.init_(architectures.model("mlp"), hypernetwork)
    with pytest.raises(ConditionError, match=r"batch_norm\.weight .*--unseen"):
        hypergen.init_(architectures.model("resnet"), hypernetwork)
    hypergen.init_(architectures.model("resnet"), hypernetwork, unseen=True)
    assert hypernetwork.training
    saved = hypernetwork.state_dict()
    fresh = generator("ours")
    fresh.load_state_dict(saved)
    with pytest.raises(ConditionError, match="trained without"):
        hypergen.init_(architectures.model("resnet"), fresh)


def test_sizes_can_be_those_of_the_models_own_start():
    model = architectures.model("vit")
    sizes = {k: float(p.detach().std()) for k, p in model.named_parameters() if p.dim() > 1}
    hypergen.init_(model, generator("ours"), scale="model")
    for key, parameter in model.named_parameters():
        if sizes.get(key, 0.0) > 0:
            assert float(parameter.detach().std()) == pytest.approx(sizes[key], rel=0.35), key
    with pytest.raises(UsageError, match="scale='own'"):
        hypergen.init_(model, generator("ours"), scale="own")


def test_frozen_networks_and_those_in_a_wrapper_are_initialised():
    import peft

    model = architectures.model("gpt2").requires_grad_(False)
    hypergen.init_(model, generator("ours"))
    assert not any(p.requires_grad for p in model.parameters())
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    wrapped = peft.inject_adapter_in_model(config, architectures.model("gpt2"))
    names = [n for n, _ in wrapped.named_parameters() if "lora_" in n]
    before = wrapped.get_parameter(names[0]).clone()
    hypergen.init_(wrapped, generator("ours"), keep="*lora_*")
    assert torch.equal(wrapped.get_parameter(names[0]), before)


def test_a_network_without_memory_is_refused():
    with torch.device("meta"):
        model = nn.Linear(3, 3)
    with pytest.raises(WeightsError, match="'weight' is on the meta device"):
        hypergen.init_(model, generator("ours"))


@pytest.mark.parametrize("kind", ["ghn2", "ours"])
def test_numbers_that_are_not_finite_are_named(kind):
    hypernetwork = generator(kind)
    hypernetwork.matrices.weight.data.fill_(float("nan"))
    with pytest.raises(WeightsError, match=r"parameter '.*weight' comes out as NaN"):
        hypergen.init_(architectures.model("mlp"), hypernetwork)


def test_a_network_trains_on_from_the_generated_start():
    model = architectures.model("mlp")
    hypergen.init_(model, generator("ours"))
    x, y = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 10
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3


def test_the_graph_of_the_model_is_traced_with_the_example_that_is_given():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 3))
    with pytest.raises(ConditionError, match="could not be traced"):
        hypergen.init_(model, generator("ours"), example=(1, 2, 6, 6))
    hypergen.init_(model, generator("ours"), example=(1, 2, 5, 5))
    assert len(trace(model, (1, 2, 5, 5)).parameters) == 4
