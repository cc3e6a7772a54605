"""Network: every architecture as JSON, as a spec, as a stack that trains."""

from __future__ import annotations

import json

import pytest
import torch
import zoo_networks
from torch.func import functional_call, grad, vmap

from hypergen.errors import UsageError
from hypergen.specs import WeightSpec
from hypergen.targets import make_target
from hypergen.zoo.networks import CNN, MLP, SIREN, Network, ViT

each = pytest.mark.parametrize("name", zoo_networks.NETWORKS)


@each
def test_json_and_back(name):
    network = zoo_networks.NETWORKS[name]
    text = json.dumps(network.to_dict())
    again = Network.from_dict(json.loads(text))
    assert again == network
    assert hash(again) == hash(network)
    assert type(again) is type(network)


@each
def test_the_spec_is_the_state_dict(name):
    network = zoo_networks.NETWORKS[name]
    spec = network.spec()
    state = network.module().state_dict()
    assert {slot.name: slot.shape for slot in spec} == {k: tuple(v.shape) for k, v in state.items()}
    assert spec is network.spec()
    assert WeightSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    # What the spec holds loads strictly, and is then the whole state.
    flat = zoo_networks.weights_of(network, 1)
    module = network.module().eval()
    module.load_state_dict(spec.unpack(flat[0]))
    x = zoo_networks.inputs_of(network, 4)
    assert torch.allclose(module(x), zoo_networks.outputs_of(network, flat, x)[0], atol=1e-5)


@each
def test_a_target_runs_generated_networks(name):
    network = zoo_networks.NETWORKS[name]
    target = make_target(network.module(), network.spec())
    flat, x = zoo_networks.weights_of(network, 3), zoo_networks.inputs_of(network, 4)
    out = target(network.spec().from_flat(flat), x.repeat(3, *[1] * (x.dim() - 1)))
    expected = zoo_networks.outputs_of(network, flat, x).flatten(0, 1)
    assert torch.allclose(out, expected, atol=1e-4 * float(expected.abs().max()))
    assert target.vectorized


@each
def test_a_stack_trains_as_each_network_does_alone(name):
    network = zoo_networks.NETWORKS[name]
    spec, module = network.spec(), network.module().train()
    flat = zoo_networks.weights_of(network, 3)
    x = torch.stack([zoo_networks.inputs_of(network, 8, seed=i) for i in range(3)])
    own = {key for key, _ in module.named_buffers()}
    named = {key: value.clone() for key, value in spec.unpack(flat).items()}
    parameters = {key: value for key, value in named.items() if key not in own}
    buffers = {key: value for key, value in named.items() if key in own}

    def loss(parameters, buffers, x):
        return functional_call(module, (parameters, buffers), (x,)).square().mean()

    gradients = vmap(grad(loss))(parameters, buffers, x)
    for i in range(3):
        alone = network.module().train()
        alone.load_state_dict(spec.unpack(flat[i]))
        alone(x[i]).square().mean().backward()
        largest = max(float(p.grad.abs().max()) for p in alone.parameters())
        for key, parameter in alone.named_parameters():
            size = float(parameter.grad.abs().max())
            # Before a batch norm a bias has no gradient: what is there is rounding of the others'.
            room = 1e-4 * size + 1e-6 * largest
            assert torch.allclose(gradients[key][i], parameter.grad, atol=room), key
        for key, buffer in alone.named_buffers():  # counted on in place, for each network
            assert torch.allclose(buffers[key][i], buffer, atol=1e-6), key
            assert not torch.equal(buffer, spec.unpack(flat[i])[key])


@each
def test_starting_weights_keep_the_signal(name):
    network = zoo_networks.NETWORKS[name]
    spec = network.spec()
    flat = torch.stack([spec.initial(i) for i in range(20)])
    out = zoo_networks.outputs_of(network, flat, zoo_networks.inputs_of(network, 50))
    assert bool(out.isfinite().all())
    if name in ("vit", "siren"):  # their outputs start small on purpose
        assert 0.005 < float(out.std()) < 0.5
    else:
        assert 0.2 < float(out.std()) < 5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "the class is missing"),
        ("MLP", "not 'MLP'"),
        ({"class": "CNN", "init_args": {"norm": ["batch"]}}, r"cannot be \['batch'\]"),
        ({"class": "MLP", "args": {}}, "without 'args'"),
        ({"class": "CN"}, r"unknown network 'CN'\. Did you mean 'CNN'\?"),
        ({"class": "MLP", "init_args": {"input": 3}}, r"no option 'input'\. Did you mean 'inputs'"),
        ({"class": "MLP", "init_args": [3]}, "must be a mapping"),
        ({"class": "MLP", "init_args": {"hidden": "32"}}, r"hidden of MLP must be a list of whole"),
        ({"class": "MLP", "init_args": {"hidden": [8, 0]}}, r"at least 1, not 0"),
        ({"class": "MLP", "init_args": {"inputs": 2.5}}, r"inputs of MLP must be a whole number"),
        ({"class": "MLP", "init_args": {"activation": "rel"}}, r"cannot be 'rel'\. Did you mean"),
        ({"class": "CNN", "init_args": {"norm": "group"}}, "norm of CNN cannot be 'group'"),
        ({"class": "CNN", "init_args": {"image": [28, 28]}}, "a list of 3 whole numbers"),
        ({"class": "CNN", "init_args": {"channels": []}}, "stages of CNN must be .* at least 1"),
        ({"class": "CNN", "init_args": {"residual": "yes"}}, "residual of CNN cannot be 'yes'"),
        ({"class": "ViT", "init_args": {"patch": 5}}, "patch 5 of ViT does not divide"),
        ({"class": "ViT", "init_args": {"heads": 5}}, "heads 5 of ViT do not divide its dim 32"),
        ({"class": "SIREN", "init_args": {"omega": 0}}, "omega of SIREN must be positive"),
        ({"class": "SIREN", "init_args": {"omega": "30"}}, "omega of SIREN must be a number"),
        ({"class": "SIREN", "init_args": {"hidden": []}}, "hidden layers of SIREN"),
    ],
)
def test_bad_descriptions_are_refused(data, message):
    with pytest.raises(UsageError, match=message):
        Network.from_dict(data)


def test_defaults_and_lists():
    assert Network.from_dict({"class": "CNN"}) == CNN()
    assert MLP(hidden=[8, 8]) == MLP(hidden=(8, 8))
    assert SIREN(omega=30) == SIREN()
    assert ViT().spec().numel == sum(p.numel() for p in ViT().module().parameters())
